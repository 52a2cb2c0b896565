//! Reads single values of metrics in the text format of Prometheus.

/// The values of all metrics.
pub(crate) struct MetricValues(Vec<Sample>);

struct Sample {
    name: String,
    /// The text after the opening brace, such as `content="log",folder="data"}`. Empty for a metric without labels.
    labels: String,
    value: u64,
}

impl MetricValues {
    /// Parses the text format. Values are rounded down; negative values and those that are not finite are left out.
    pub(crate) fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let value: f64 = value.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
            Some(Sample { name: name.to_owned(), labels: labels.to_owned(), value: value as u64 })
        });
        Self(samples.collect())
    }

    /// The sum of a metric over all its labels. `None` if this process does not have the metric.
    pub(crate) fn sum(&self, name: &str) -> Option<u64> {
        let mut values =
            self.0.iter().filter(|sample| sample.name == name).map(|sample| sample.value).peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// The values of a metric, as pairs of the value of `label` and the metric's value. Values without this label are
    /// left out.
    pub(crate) fn labelled<'a>(
        &'a self,
        name: &'a str,
        label: &'a str,
    ) -> impl Iterator<Item = (String, u64)> + 'a {
        self.0.iter().filter(move |sample| sample.name == name).filter_map(move |sample| {
            let prefix = format!("{label}=\"");
            let rest = match sample.labels.strip_prefix(&prefix) {
                Some(rest) => rest,
                None => sample.labels.split_once(&format!("\",{prefix}"))?.1,
            };
            Some((rest.split('"').next()?.to_owned(), sample.value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sums_and_labels() {
        let text = "# HELP a Text\na{x=\"one\"} 1\na{x=\"two\",y=\"z\"} 2.9\nb 7\nc NaN\n";
        let values = MetricValues::parse(text);
        assert_eq!((values.sum("a"), values.sum("b")), (Some(3), Some(7)));
        assert_eq!((values.sum("c"), values.sum("d")), (None, None));
        let labelled: Vec<_> = values.labelled("a", "x").collect();
        assert_eq!(labelled, [("one".to_owned(), 1), ("two".to_owned(), 2)]);
        let labelled: Vec<_> = values.labelled("a", "y").collect();
        assert_eq!(labelled, [("z".to_owned(), 2)]);
    }

    #[test]
    fn does_not_find_a_label_at_the_end_of_a_longer_name() {
        let values = MetricValues::parse("a{subfolder=\"one\",folder=\"two\"} 1\na{subfolder=\"one\"} 2\n");
        let labelled: Vec<_> = values.labelled("a", "folder").collect();
        assert_eq!(labelled, [("two".to_owned(), 1)]);
    }
}

//! Tests of malformed query parameters, on every `GET` route that the OpenAPI document describes, and of missing query
//! parameters.

use crate::audit::seeded_app;
use crate::contract::{Contract, assert_problem};

/// A query parameter of a route.
struct Parameter {
    /// The route's path in the document.
    template: String,
    /// A path of the route, with values of the other required parameters. Ends with `?` or `&`, so that this parameter
    /// can follow.
    path: String,
    name: String,
}

impl Parameter {
    /// Whether the route is a live feed.
    fn belongs_to_live_feed(&self) -> bool {
        self.template.starts_with("/api") && self.template.ends_with("/events")
    }

    /// Returns the error detail for a malformed value, and a function that says whether the parameter accepts a value of
    /// the test.
    fn expected(&self) -> (String, fn(&str) -> bool) {
        let is_admin_route = self.template.starts_with("/admin");
        let takes_point = self.template.contains("/at/") || self.template.contains("/diff/");
        let types = "one or more of `message.created`, `message.edited`, `message.deleted`, `chat.created`, \
                     `app.renamed`, separated by commas";
        let types_of_chat =
            "one or more of `message.created`, `message.edited`, `message.deleted`, separated by commas";
        let is_zero: fn(&str) -> bool = |value| value == "0";
        let none: fn(&str) -> bool = |_| false;
        let any_text: fn(&str) -> bool = |value| !value.is_empty();
        let (values, accepts) = match self.name.as_str() {
            "limit" if is_admin_route => ("a number from 1 to 1000", none),
            "limit" | "top" => ("a number from 1 to 100", none),
            "last" => ("a number from 0 to 1000", is_zero),
            "track_total" => ("a number from 0 to 1000000000", is_zero),
            "before" | "after" if is_admin_route => ("a position in the log, a whole number", is_zero),
            "after" if self.belongs_to_live_feed() => ("the `id` of an event, unchanged", none),
            "types" if self.template.contains("/chats/") => (types_of_chat, none),
            "types" => (types, none),
            "sender" => ("an id of 1 to 128 characters without control characters", any_text),
            "after" => ("the number of a message, from 0 up", is_zero),
            "before" | "around" => ("the number of a message, from 1 up", none),
            "point" => ("a position in the log, or a time such as 2026-09-21T14:13:20Z", is_zero),
            "from" | "to" if takes_point => {
                ("a position in the log, or a time such as 2026-09-21T14:13:20Z", is_zero)
            }
            "from" | "to" if is_admin_route => ("a time such as 2026-09-21T14:13:20Z, or a date", none),
            "from" | "to" => ("an RFC 3339 time, such as 2026-09-21T14:13:20Z", none),
            "since" => ("a duration such as 2h, 90s or 1d12h", none),
            "chat" => ("a chat's number, from 1 up", none),
            "app" => ("an app's token, 36 characters", none),
            "type" => ("types of events, separated by commas", any_text),
            "stream" | "actor" | "address" | "correlation" | "text" => ("a text that is not empty", any_text),
            "projection" => ("`read_model` or `search_index`", none),
            "all" | "fuzzy" => ("`true` or `false`", none),
            "order" => ("`newest` or `oldest`", none),
            "sort" => ("`relevance`, `newest` or `oldest`", none),
            "cursor" => ("one that this server issued for this list", none),
            other => panic!("add the values of `{other}`, a parameter of {}", self.template),
        };
        (format!("`{}` must be {values}", self.name), accepts)
    }
}

/// Returns all query parameters that the document describes for `GET` routes.
fn query_parameters(contract: &Contract, token: &str) -> Vec<Parameter> {
    let paths = contract.document().json()["paths"].as_object().expect("paths");
    let mut found = Vec::new();
    for (template, item) in paths {
        let parameters = item["get"]["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        let parameters = parameters.iter().filter(|parameter| parameter["in"] == "query");
        let name_of = |parameter: &serde_json::Value| parameter["name"].as_str().expect("a name").to_owned();
        for name in parameters.clone().map(name_of) {
            let mut path = template
                .replace("{app_token}", token)
                .replace("{correlation_id}", "x")
                .replace("{chat_number}", "1")
                .replace("{message_number}", "1")
                + "?";
            for other in parameters.clone().filter(|parameter| parameter["required"] == true).map(name_of) {
                let value = if other == "from" { "0" } else { "2" };
                if other != name {
                    path.extend([other.as_str(), "=", value, "&"]);
                }
            }
            found.push(Parameter { template: template.clone(), path, name });
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_query_parameter_is_named_with_the_values_that_it_takes() {
    let contract = Contract::start().await;
    let token = seeded_app(&contract).await;
    let parameters = query_parameters(&contract, &token);
    assert!(parameters.len() > 50, "only {} query parameters are described", parameters.len());
    for parameter in parameters {
        let Parameter { template, path, name } = &parameter;
        let twice = contract.get(format!("{path}{name}=1&{name}=1")).await;
        assert_problem(&twice, 400, "malformed_query");
        assert_eq!(twice.json()["detail"], format!("`{name}` is given more than once"), "{template}");
        let not_utf8 = contract.get(format!("{path}{name}=%FF")).await;
        assert_problem(&not_utf8, 400, "malformed_query");
        assert_eq!(not_utf8.json()["detail"], format!("`{name}` must be UTF-8"), "{template}");
        if name == "query" {
            assert_problem(&contract.get(format!("{path}query=")).await, 422, "query_blank");
            continue;
        }
        let (detail, accepts) = parameter.expected();
        for value in ["", "xyz", "-1", "0", "99999999999999999999"] {
            if accepts(value) {
                // The answers of a tail and of a live feed don't end.
                if !template.ends_with("/tail") && !parameter.belongs_to_live_feed() {
                    contract.get(format!("{path}{name}={value}")).await.expect(200);
                }
                continue;
            }
            let refused = contract.get(format!("{path}{name}={value}")).await;
            assert_problem(&refused, 400, "malformed_query");
            assert_eq!(refused.json()["detail"], detail, "{template} {value:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_query_parameter_is_named() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    for (path, name) in [("at", "point"), ("diff", "from"), ("diff?from=1", "to")] {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let refused = contract.get(format!("/admin/v1/audit/{path}/apps/{token}?{query}")).await;
        assert_problem(&refused, 400, "malformed_query");
        assert_eq!(refused.json()["detail"], format!("`{name}` is missing"));
    }
}

//! Parsing of the command line: options in front of the verb, usage errors as JSON, and exit codes in each help text.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command, CommandFactory as _, FromArgMatches as _};

use crate::args::{Arguments, Task};
use crate::operator;

const EXIT_CODES: &str = "\
Exit code:
  0    success; also if a filter or --all matches nothing
  1    a finding that needs attention
  2    wrong usage or environment; also if what an argument names does not exist
  130  a signal stopped the command before its end
  141  nothing reads the output";

/// The width of help texts, in columns, unless the terminal is narrower.
const HELP_WIDTH: usize = 80;

/// The maximal number of characters of a value that a usage error repeats.
const MAX_REPEATED_CHARS: usize = 100;

/// Commands that serve until they are stopped. They have no findings.
const ROLES: [&str; 4] = ["serve", "command-api", "query-api", "projector"];
const EXIT_CODES_OF_ROLES: &str = "\
Exit code:
  0    the process stopped in an orderly way after a signal
  2    wrong usage or environment
  130  the process did not stop in time, or received a second signal";

/// Returns the definition of the whole command line.
pub(crate) fn definition() -> Command {
    with_exit_codes(Arguments::command().max_term_width(HELP_WIDTH))
}

/// Parses the arguments of this process. Prints help and usage errors, and returns the exit code after that.
pub(crate) fn parse() -> Result<Task, ExitCode> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let command = definition();
    let parsed = match parse_words(&command, words.clone()) {
        Err(error) if error.use_stderr() => match move_options_after_verb(&command, &words) {
            Some(moved) => parse_words(&command, moved),
            None => Err(error),
        },
        parsed => parsed,
    };
    let (arguments, shows_full_texts) =
        parsed.map_err(|error| report(&with_server_hint(with_short_value(error), &command), &words))?;
    if shows_full_texts {
        operator::show_in_full();
    }
    Ok(arguments.task())
}

/// Parses the words of a command line. Also returns whether they contain `--full`, which many verbs have.
fn parse_words(command: &Command, words: Vec<OsString>) -> Result<(Arguments, bool), clap::Error> {
    let matches = command.clone().try_get_matches_from(words)?;
    let mut verb: &ArgMatches = &matches;
    while let Some((_, subcommand)) = verb.subcommand() {
        verb = subcommand;
    }
    let shows_full_texts = verb.try_get_one(operator::FULL_TEXT).ok().flatten().copied().unwrap_or_default();
    Ok((Arguments::from_arg_matches(&matches)?, shows_full_texts))
}

/// Adds which verbs have the option `--server`, if the error is that a verb does not have it.
fn with_server_hint(mut error: clap::Error, command: &Command) -> clap::Error {
    let argument = error.get(ContextKind::InvalidArg);
    if error.kind() == ErrorKind::UnknownArgument
        && matches!(argument, Some(ContextValue::String(option)) if option == "--server")
    {
        let hint = format!("the verbs with --server are {}", verbs_with_server(command).join(", "));
        // A similar option, which has nothing to do with a server.
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.into()]));
    }
    error
}

/// Returns the verbs that can act through a server, or read from one.
fn verbs_with_server(command: &Command) -> Vec<String> {
    let mut verbs = Vec::new();
    for noun in command.get_subcommands() {
        let has_server =
            |verb: &&Command| verb.get_arguments().any(|option| option.get_long() == Some("server"));
        let names = noun.get_subcommands().filter(has_server);
        verbs.extend(names.map(|verb| format!("{} {}", noun.get_name(), verb.get_name())));
    }
    verbs
}

/// Moves options to the end of the verb if they stand before it or between its words, because options belong to verbs.
/// `None` if there are no such options, or if the words name no verb.
fn move_options_after_verb(command: &Command, words: &[OsString]) -> Option<Vec<OsString>> {
    let (program, mut rest) = words.split_first()?;
    let (mut verb, mut options) = (vec![program.clone()], Vec::new());
    let mut level = command;
    while level.has_subcommands() {
        let word;
        (word, rest) = rest.split_first()?;
        let text = word.to_str()?;
        if let Some(subcommand) = level.find_subcommand(text) {
            verb.push(word.clone());
            level = subcommand;
        } else if text.starts_with('-') {
            options.push(word.clone());
            if takes_next_word(command, text) {
                let value;
                (value, rest) = rest.split_first()?;
                options.push(value.clone());
            }
        } else if level.get_positionals().next().is_some() {
            // An argument between the words of the verb, such as the point in `audit at 17 app`.
            verb.push(word.clone());
        } else {
            return None;
        }
    }
    (!options.is_empty()).then(|| [verb, options, rest.to_vec()].concat())
}

/// Whether an option of the command, or of any command below it, takes the next word as its value.
fn takes_next_word(command: &Command, option: &str) -> bool {
    let is_named = |argument: &clap::Arg| match option.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        None => {
            argument.get_short().is_some_and(|short| option.strip_prefix('-') == Some(&short.to_string()))
        }
    };
    command.get_arguments().any(|argument| is_named(argument) && argument.get_action().takes_values())
        || command.get_subcommands().any(|subcommand| takes_next_word(subcommand, option))
}

/// Shortens the value that a usage error repeats.
fn with_short_value(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
        && value.chars().count() > MAX_REPEATED_CHARS
    {
        let short = value.chars().take(MAX_REPEATED_CHARS).chain(['…']).collect();
        error.insert(ContextKind::InvalidValue, ContextValue::String(short));
    }
    error
}

/// Prints help or a usage error: the error as JSON where the command line asks for JSON.
fn report(error: &clap::Error, words: &[OsString]) -> ExitCode {
    if error.use_stderr() && asks_for_json(words) {
        return operator::print_usage_error(usage_message(error));
    }
    match error.print() {
        Err(failed) if !error.use_stderr() => operator::write_failure(&failed),
        // Standard error may be closed.
        _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
    }
}

fn asks_for_json(words: &[OsString]) -> bool {
    let attached = ["-ojson", "-o=json", "--output=json"];
    words.iter().any(|word| attached.iter().any(|option| word == option))
        || words.windows(2).any(|pair| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json")
}

/// Returns the error on one line, without the usage.
fn usage_message(error: &clap::Error) -> String {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
    ) {
        return "a command is missing; --help lists the commands".to_owned();
    }
    let text = error.to_string();
    let message = ["\n\nUsage:", "\n\nFor more information"]
        .iter()
        .filter_map(|end| text.split_once(end))
        .map(|(before_end, _)| before_end)
        .min_by_key(|before_end| before_end.len());
    let message = message.unwrap_or(&text);
    let words: Vec<&str> = message.strip_prefix("error: ").unwrap_or(message).split_whitespace().collect();
    words.join(" ")
}

/// Adds the exit codes to the help of a command and of its subcommands.
fn with_exit_codes(command: Command) -> Command {
    let codes = if ROLES.contains(&command.get_name()) { EXIT_CODES_OF_ROLES } else { EXIT_CODES };
    let help = match command.get_after_help() {
        Some(help) => format!("{help}\n\n{codes}"),
        None => codes.to_owned(),
    };
    let subcommands: Vec<String> =
        command.get_subcommands().map(|subcommand| subcommand.get_name().to_owned()).collect();
    let command = command.after_help(help);
    subcommands.iter().fold(command, |command, name| command.mut_subcommand(name, with_exit_codes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(line: &str) -> Option<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let moved = move_options_after_verb(&definition(), &words)?;
        let moved: Vec<&str> = moved.iter().filter_map(|word| word.to_str()).collect();
        Some(moved.join(" "))
    }

    #[test]
    fn the_arguments_are_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn options_in_front_of_a_verb_are_moved_behind_it() {
        for (given, expected) in [
            ("chat-api --data-dir d audit list --app a", "chat-api audit list --data-dir d --app a"),
            ("chat-api audit -o json head", "chat-api audit head -o json"),
            ("chat-api --data-dir=audit audit head", "chat-api audit head --data-dir=audit"),
            ("chat-api --data-dir audit audit head", "chat-api audit head --data-dir audit"),
            ("chat-api audit at -o json 17 app a", "chat-api audit at 17 app -o json a"),
            ("chat-api --data-dir d serve", "chat-api serve --data-dir d"),
        ] {
            assert_eq!(moved(given).as_deref(), Some(expected), "{given}");
        }
        for unmoved in ["chat-api", "chat-api audit list --app a", "chat-api nonsense", "chat-api audit -o"] {
            assert_eq!(moved(unmoved), None, "{unmoved}");
        }
    }

    #[test]
    fn a_verb_without_the_option_server_names_those_that_have_it() {
        let words = ["chat-api", "audit", "tail", "--server", "http://x"].map(OsString::from).to_vec();
        let command = definition();
        let Err(error) = parse_words(&command, words) else { panic!("the verb has the option") };
        let message = usage_message(&with_server_hint(error, &command));
        let expected =
            "unexpected argument '--server' found tip: the verbs with --server are projections list, ";
        assert!(message.starts_with(expected), "{message}");
        assert!(message.ends_with(", dead-letters acknowledge"), "{message}");
    }

    #[test]
    fn an_option_in_front_of_a_verb_is_accepted_once_it_is_moved() {
        let words = ["chat-api", "audit", "--data-dir", "d", "head"].map(OsString::from).to_vec();
        assert!(parse_words(&definition(), words.clone()).is_err());
        let moved = move_options_after_verb(&definition(), &words).expect("words");
        assert!(parse_words(&definition(), moved).is_ok());
    }

    #[test]
    fn help_fits_80_columns_and_its_examples_are_not_wrapped() {
        fn check(command: &mut Command) {
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for help in [command.render_help(), command.render_long_help()] {
                let help = help.to_string();
                // Usage lines are not wrapped.
                for line in help.lines().filter(|line| !line.starts_with("Usage:")) {
                    assert!(line.chars().count() <= HELP_WIDTH, "{}: {line}", command.get_name());
                }
                for line in examples.lines().filter(|line| line.starts_with(' ')) {
                    assert!(help.lines().any(|shown| shown == line), "{}: {line}", command.get_name());
                }
            }
            command.get_subcommands_mut().for_each(check);
        }
        let mut command = definition();
        command.build();
        check(&mut command);
    }

    #[test]
    fn a_usage_error_repeats_only_the_beginning_of_a_long_value() {
        let reason = "x".repeat(1_001);
        let words = ["chat-api", "projections", "promote", "--reason", &reason].map(OsString::from).to_vec();
        let error = parse_words(&definition(), words).err().expect("an error");
        let message = usage_message(&with_short_value(error));
        assert_eq!(
            message,
            format!(
                "invalid value '{}…' for '--reason <TEXT>': a reason has at most 1000 characters, and this one has \
                 1001",
                "x".repeat(MAX_REPEATED_CHARS)
            )
        );
    }

    #[test]
    fn each_help_text_has_the_exit_codes() {
        fn check(command: &Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Exit code:\n  0 "), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&definition());
    }
}

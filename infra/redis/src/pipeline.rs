//! Commands that are sent together.

use redis::{Arg, Cmd, RedisError, ToRedisArgs, Value};

/// What Redis says to one command: a value, or why it does not carry it out.
pub(crate) type Reply = Result<Value, RedisError>;

/// A Lua script, which Redis remembers under its hash.
pub(crate) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }
}

/// Commands that are sent together and answered one by one, in order. Those on the same key are carried out in order,
/// unless a cluster moves the key meanwhile; nothing else is promised of their order, and others' commands come between
/// them. A script is carried out as a whole.
#[derive(Default)]
pub(crate) struct Pipeline<'a> {
    pub(super) commands: Vec<Cmd>,
    pub(super) invocations: Vec<ScriptInvocation<'a>>,
}

/// A command of a pipeline that invokes a script.
pub(super) struct ScriptInvocation<'a> {
    /// Which of the commands.
    pub(super) index: usize,
    script: &'a Script,
}

impl<'a> Pipeline<'a> {
    /// Adds a command.
    pub(crate) fn command(&mut self, command: Cmd) {
        self.commands.push(command);
    }

    /// Adds the invocation of a script on one key.
    pub(crate) fn script(&mut self, script: &'a Script, key: &str, arguments: impl ToRedisArgs) {
        self.script_on_keys(script, &[key], arguments);
    }

    /// Adds the invocation of a script on several keys, which must be in one slot of a cluster.
    pub(crate) fn script_on_keys(&mut self, script: &'a Script, keys: &[&str], arguments: impl ToRedisArgs) {
        self.invocations.push(ScriptInvocation { index: self.commands.len(), script });
        let mut command = redis::cmd("EVALSHA");
        command.arg(&script.hash).arg(keys.len()).arg(keys).arg(arguments);
        self.commands.push(command);
    }
}

impl ScriptInvocation<'_> {
    /// The command with the script's text instead of its hash, which makes Redis remember it.
    pub(super) fn with_script_text(&self, command: &Cmd) -> Cmd {
        const NAME_AND_HASH: usize = 2;
        let mut full = redis::cmd("EVAL");
        full.arg(self.script.text);
        for argument in command.args_iter().skip(NAME_AND_HASH) {
            if let Arg::Simple(argument) = argument {
                full.arg(argument);
            }
        }
        full
    }
}

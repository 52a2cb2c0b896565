//! Pipelines of commands and Lua scripts.

use redis::{Arg, Cmd, RedisError, ToRedisArgs, Value};

/// The reply to one command: a value, or the error of that command.
pub(crate) type Reply = Result<Value, RedisError>;

/// A Lua script, which Redis caches by its hash.
pub(crate) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }
}

/// Commands that are sent together, with one reply each, in order. Commands on one key are executed in order, with two
/// exceptions: a cluster moves the key meanwhile; or Redis has not loaded the script of a command, and executes that
/// command after the others. The order of commands on different keys is undefined, and commands of other clients may
/// come in between. A script is atomic.
#[derive(Default)]
pub(crate) struct Pipeline<'a> {
    pub(super) commands: Vec<Cmd>,
    pub(super) invocations: Vec<ScriptInvocation<'a>>,
}

/// A command of a pipeline that invokes a script.
pub(super) struct ScriptInvocation<'a> {
    /// The index of the command in the pipeline.
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
    /// The command with the script's text instead of its hash, which also loads the script into the cache of Redis.
    pub(super) fn with_script_text(&self, command: &Cmd) -> Cmd {
        const EVALSHA_AND_HASH: usize = 2;
        let mut full = redis::cmd("EVAL");
        full.arg(self.script.text);
        for argument in command.args_iter().skip(EVALSHA_AND_HASH) {
            if let Arg::Simple(argument) = argument {
                full.arg(argument);
            }
        }
        full
    }
}

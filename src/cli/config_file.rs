//! `run --config FILE` and `run --print-config`: the flags of `run` in a TOML file, by the same words.
//!
//! The flags are clap's: a key is the name of one, and its value goes through the same parser. So a file cannot say more or
//! less than a command line can.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, Parser};
use toml::{Spanned, Value};

use super::disk_arg::nearest;
use super::run::RunArgs;
use super::{Failure, one_sentence, print};

/// The flags that are about the file itself.
const ABOUT_FILES: [&str; 2] = ["config", "print-config"];

/// The flags of `run` alone.
#[derive(Debug, Parser)]
#[command(name = "run")]
struct Line {
    #[command(flatten)]
    run: RunArgs,
}

/// The flags, with those of `--config` that the command line does not give; `None`: they were printed, as asked.
pub(super) fn with_file(args: RunArgs, given: &ArgMatches) -> Result<Option<RunArgs>, Failure> {
    let mut words = given_words(given);
    if let Some(path) = &args.config {
        let name = format!("--config {}", path.display());
        let fail = |why: String| Failure { code: 4, message: format!("{name} cannot be read: {why}") };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let wrong = |message| Failure::usage(format!("{name}, {message}"));
        let in_file = words_of(&text).map_err(wrong)?;
        words.extend(in_file.into_iter().filter(|(flag, _)| !given_on_line(given, flag)));
    }
    if !args.print_config {
        return if args.config.is_none() {
            Ok(Some(args))
        } else {
            parsed(&words).map(|line| Some(line.run))
        };
    }
    parsed(&words)?;
    print(&text_of(&words)?).map(|()| None)
}

/// A flag's name and its words: `--name=VALUE` for each value, `--name` if it has none.
type Words = BTreeMap<String, Vec<OsString>>;

fn flags() -> Vec<Arg> {
    let of_files = |arg: &&Arg| !ABOUT_FILES.contains(&arg.get_long().unwrap_or_default());
    Line::command().get_arguments().filter(|arg| arg.get_long().is_some()).filter(of_files).cloned().collect()
}

fn long(arg: &Arg) -> &str {
    arg.get_long().unwrap_or_default()
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

fn given_on_line(given: &ArgMatches, flag: &str) -> bool {
    flags().iter().any(|arg| {
        long(arg) == flag && given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
    })
}

fn given_words(given: &ArgMatches) -> Words {
    let flags = flags();
    let on_line = flags.iter().filter(|arg| given_on_line(given, long(arg)));
    let words = on_line.map(|arg| {
        let name = format!("--{}", long(arg));
        let with_value = |value: &OsStr| {
            let mut word = OsString::from(format!("{name}="));
            word.push(value);
            word
        };
        let values = given.get_raw(arg.get_id().as_str()).into_iter().flatten().map(with_value);
        (long(arg).to_string(), if is_switch(arg) { vec![name.into()] } else { values.collect() })
    });
    words.collect()
}

fn parsed(words: &Words) -> Result<Line, Failure> {
    let line = std::iter::once(OsString::from("run")).chain(words.values().flatten().cloned());
    Line::try_parse_from(line).map_err(|e| Failure::usage(one_sentence(&e.to_string())))
}

/// The words that a file stands for, or what is wrong, with its line.
fn words_of(text: &str) -> Result<Words, String> {
    let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let file: BTreeMap<Spanned<String>, Spanned<Value>> = toml::from_str(text)
        .map_err(|e| format!("line {}: {}", line(e.span().map_or(0, |span| span.start)), e.message()))?;
    let flags = flags();
    let mut words = Words::new();
    for (key, value) in &file {
        let at = |message: String| format!("line {}: {message}", line(key.span().start));
        let name: &str = key.get_ref();
        let Some(flag) = flags.iter().find(|flag| long(flag) == name) else {
            let meant = nearest(name, flags.iter().map(long));
            let meant = meant.map_or_else(String::new, |name| format!(" (did you mean {name}?)"));
            return Err(at(format!("run has no flag --{name}{meant}")));
        };
        let of_flag = of_flag(flag, value.get_ref()).map_err(at)?;
        // By itself, so that the message can name its line.
        let one = Words::from([(name.to_string(), of_flag)]);
        parsed(&one).map_err(|failure| at(failure.message))?;
        words.extend(one);
    }
    Ok(words)
}

fn of_flag(flag: &Arg, value: &Value) -> Result<Vec<OsString>, String> {
    let name = long(flag);
    match (is_switch(flag), value) {
        (true, Value::Boolean(true)) => Ok(vec![format!("--{name}").into()]),
        (true, Value::Boolean(false)) => Ok(Vec::new()),
        (true, _) => Err(format!("{name} is true or false")),
        (false, Value::Array(all)) if matches!(flag.get_action(), ArgAction::Append) => {
            all.iter().map(|value| word(name, value)).collect()
        }
        (false, value) => Ok(vec![word(name, value)?]),
    }
}

/// `--name=VALUE`. A table is a list of KEY=VALUE.
fn word(name: &str, value: &Value) -> Result<OsString, String> {
    let plain = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        _ => Err(format!("{name} takes a text or a number here")),
    };
    let text = match value {
        Value::Table(pairs) => {
            let pair = |(key, value): (&String, &Value)| match value {
                Value::Boolean(on) => Ok(format!("{key}={}", if *on { "on" } else { "off" })),
                value => Ok(format!("{key}={}", plain(value)?.replace(',', ",,"))),
            };
            pairs.iter().map(pair).collect::<Result<Vec<_>, String>>()?.join(",")
        }
        value => plain(value)?,
    };
    Ok(format!("--{name}={text}").into())
}

/// The file that stands for these words; what is not given is there as a comment, if it has a default.
fn text_of(words: &Words) -> Result<String, Failure> {
    let head = "# doorbell run --config FILE: the keys are the flags of `doorbell run --help`.\n".to_string();
    let lines = flags().iter().map(|flag| lines_of(flag, words)).collect::<Result<Vec<_>, _>>()?;
    Ok(std::iter::once(head).chain(lines).collect())
}

fn lines_of(flag: &Arg, words: &Words) -> Result<String, Failure> {
    let (name, switch) = (long(flag), is_switch(flag));
    let Some(given) = words.get(name).filter(|words| !words.is_empty()) else {
        let default = flag.get_default_values().first().filter(|_| !switch);
        let line = |value: &OsStr| format!("# {name} = {}\n", toml_text(&value.to_string_lossy()));
        return Ok(default.map_or(String::new(), |value| line(value)));
    };
    if switch {
        return Ok(format!("{name} = true\n"));
    }
    let value = |word: &OsString| {
        let word = word.to_str().and_then(|word| word.split_once('='));
        let no_text =
            || Failure::usage(format!("--{name} has bytes that are no text, which TOML cannot say"));
        word.map(|(_, value)| toml_text(value)).ok_or_else(no_text)
    };
    let values = given.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    let list = matches!(flag.get_action(), ArgAction::Append);
    Ok(match &values[..] {
        [one] if !list => format!("{name} = {one}\n"),
        all => format!("{name} = [\n    {},\n]\n", all.join(",\n    ")),
    })
}

/// A value as TOML writes it: a number where it is one.
fn toml_text(value: &str) -> String {
    match value.parse::<i64>() {
        Ok(number) if number.to_string() == value => value.to_string(),
        _ => Value::String(value.into()).to_string(),
    }
}

#[cfg(test)]
#[path = "config_file_tests.rs"]
mod tests;

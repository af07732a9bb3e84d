//! Refuses a log filter that `env_logger` would take for something else.
//!
//! `env_logger` prints a warning of its own for a broken part and goes on, and takes a misspelt level for the name of a
//! module: `LOG_LEVEL=wran` would silence everything. Here it is an error that names the nearest level.

use log::LevelFilter;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Whether `filter` is a comma-separated list of `LEVEL`, `MODULE` and `MODULE=LEVEL`, with `/TEXT` at its end for records
/// that contain the text.
pub(super) fn check(filter: &str) -> Result<(), String> {
    let directives = filter.split('/').next().unwrap_or_default();
    directives
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .try_for_each(check_part)
}

fn check_part(part: &str) -> Result<(), String> {
    let (module, level) = match part.split_once('=') {
        Some((module, level)) => (module.trim(), Some(level.trim())),
        None if is_module(part) => (part, None),
        None => ("", Some(part)),
    };
    match level {
        Some(level) if level.parse::<LevelFilter>().is_err() => Err(unknown(level)),
        _ if module.contains(char::is_whitespace) => Err(format!("`{module}` is not a module")),
        _ => Ok(()),
    }
}

/// A word without a level is a module only where it can't be a misspelt level.
fn is_module(word: &str) -> bool {
    word.starts_with("ringmain") || word.contains("::")
}

fn unknown(level: &str) -> String {
    let lower = level.to_ascii_lowercase();
    let nearest = LEVELS
        .iter()
        .min_by_key(|known| strsim::damerau_levenshtein(known, &lower));
    let hint = match nearest {
        Some(known) if strsim::damerau_levenshtein(known, &lower) <= 2 => {
            format!("; did you mean `{known}`?")
        }
        _ => String::new(),
    };
    format!("`{level}` is not one of {}{hint}", LEVELS.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(filter: &str, part: &str) {
        let error = check(filter).expect_err("the filter is refused");
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn levels_and_filters_are_taken() {
        for filter in [
            "info",
            "WARN",
            "off",
            "warn,ringmain=debug",
            "ringmain::shard=trace, error",
            "hyper::client",
            "info/my-service",
            "",
        ] {
            assert_eq!(check(filter), Ok(()), "{filter}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused_and_the_nearest_named() {
        refused("wran", "did you mean `warn`?");
        refused("ringmain=debgu", "did you mean `debug`?");
        refused(
            "info,loud",
            "`loud` is not one of off, error, warn, info, debug, trace",
        );
        refused("a=b=c", "`b=c`");
    }
}

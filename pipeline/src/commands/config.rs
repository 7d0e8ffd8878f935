//! `config`: the settings in force.

use crate::access::Load;
use crate::cli::ConfigCommand;
use crate::command_error::CommandError;
use crate::config::Need;
use crate::output;

/// `config`.
pub(crate) fn config(command: ConfigCommand, load: Load<'_>) -> Result<(), CommandError> {
    let ConfigCommand::Show { section, form } = command;
    let config = load(Need::Local)?;
    let text = match &section {
        Some(name) => config.section_toml(name).ok_or_else(|| {
            let known: Vec<_> = config.effective().iter().map(|setting| setting.section).collect();
            let mut known = known;
            known.dedup();
            CommandError::usage(format!(
                "--section: there is no section {name:?}; the sections are {}",
                known.join(", ")
            ))
        })?,
        None => config.to_redacted_toml(),
    };
    if !form.is_json {
        output::bytes(text.as_bytes());
        return Ok(());
    }
    let is_shown = |name: &str| section.as_ref().is_none_or(|section| section == name);
    let shown: Vec<_> = config.effective().iter().filter(|setting| is_shown(setting.section)).collect();
    form.print(&shown, |_| text);
    Ok(())
}

//! `cargo xtask completions`: a script for the shell, which asks the helper itself for what fits, so that the names of
//! databases and services are always those of the manifest.

use anyhow::{Result, bail};
use clap::CommandFactory;
use clap_complete::engine::{CompletionCandidate, complete};

use crate::cli::{Cli, CompletionShell, CompletionsArgs};
use crate::context;
use crate::files;
use crate::stack::Repository;
use crate::stack::manifest::Manifest;
use crate::ui::{self, Exit, Failure};

/// Each completes `cargo xtask`, and the helper by its own name, as the Nix package installs it.
const BASH: &str = r#"# cargo xtask: completion for bash
__cargo_xtask_complete() {
    if [[ ${COMP_WORDS[1]} == xtask ]]; then
        local IFS=$'\n'
        COMPREPLY=($(cargo xtask completions bash -- "$((COMP_CWORD - 1))" "${COMP_WORDS[@]:1}" 2>/dev/null))
    elif declare -F _cargo >/dev/null; then
        _cargo "$@"
    fi
}
complete -o default -F __cargo_xtask_complete cargo
__xtask_complete() {
    local IFS=$'\n'
    COMPREPLY=($(xtask completions bash -- "$COMP_CWORD" "${COMP_WORDS[@]}" 2>/dev/null))
}
complete -o default -F __xtask_complete xtask
"#;

const ZSH: &str = r#"#compdef cargo xtask
# cargo xtask: completion for zsh
__cargo_xtask_complete() {
    if [[ ${words[2]} == xtask ]]; then
        local -a found
        found=("${(@f)$(cargo xtask completions zsh -- $((CURRENT - 2)) "${words[@]:1}" 2>/dev/null)}")
        compadd -a found
    elif (( $+functions[_cargo] )); then
        _cargo "$@"
    fi
}
__xtask_complete() {
    local -a found
    found=("${(@f)$(xtask completions zsh -- $((CURRENT - 1)) "${words[@]}" 2>/dev/null)}")
    compadd -a found
}
compdef __cargo_xtask_complete cargo
compdef __xtask_complete xtask
"#;

const FISH: &str = r#"# cargo xtask: completion for fish
function __cargo_xtask_complete
    set -l words (commandline --tokens-expanded --cut-at-cursor 2>/dev/null; or commandline -opc)
    set -l before $words[2..-1]
    cargo xtask completions fish -- (count $before) $before (commandline -ct) 2>/dev/null
end
complete -c cargo -n '__fish_seen_subcommand_from xtask' -f -a '(__cargo_xtask_complete)'
function __xtask_complete
    set -l words (commandline --tokens-expanded --cut-at-cursor 2>/dev/null; or commandline -opc)
    xtask completions fish -- (count $words) $words (commandline -ct) 2>/dev/null
end
complete -c xtask -f -a '(__xtask_complete)'
"#;

pub fn run(args: &CompletionsArgs) -> Result<Exit> {
    let script = match args.shell {
        CompletionShell::Bash => BASH,
        CompletionShell::Zsh => ZSH,
        CompletionShell::Fish => FISH,
    };
    let Some((index, words)) = args.words.split_first() else {
        ui::data(script)?;
        return Ok(Exit::Done);
    };
    let Some(index) = index.to_str().and_then(|index| index.parse::<usize>().ok()) else {
        bail!(Failure::new(Exit::Usage, "the first word behind `--` is the index of the word to complete"));
    };
    let mut words = words.to_vec();
    words.resize_with((index + 1).max(words.len()), Default::default);
    let found = complete(&mut Cli::command(), words, index, None)?;
    let lines = found.iter().map(|candidate| format!("{}\n", candidate.get_value().to_string_lossy()));
    ui::data(&lines.collect::<String>())?;
    Ok(Exit::Done)
}

/// The manifest that the words on the command line speak of. Completion has no errors: nothing is found then.
fn manifest() -> Option<Manifest> {
    let repository = find_repository()?;
    let words: Vec<String> = std::env::args().collect();
    let named = words.iter().position(|word| word == "--stack").and_then(|at| words.get(at + 1)).cloned();
    let name =
        named.or_else(|| std::env::var("XTASK_STACK").ok()).unwrap_or_else(|| repository.default_stack().to_owned());
    let text = files::read_text(&repository.root.join(repository.manifest_of(&name))).ok()?;
    toml::from_str(&text).ok()
}

fn find_repository() -> Option<Repository> {
    context::repository(&std::env::current_dir().ok()?).ok()
}

fn candidates(names: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    names.into_iter().map(CompletionCandidate::new).collect()
}

pub fn stacks() -> Vec<CompletionCandidate> {
    candidates(find_repository().map(|repository| repository.stacks).unwrap_or_default())
}

pub fn databases() -> Vec<CompletionCandidate> {
    candidates(manifest().map(|manifest| manifest.databases.into_keys().collect::<Vec<_>>()).unwrap_or_default())
}

pub fn services() -> Vec<CompletionCandidate> {
    candidates(manifest().map(service_names).unwrap_or_default())
}

pub fn applications_and_services() -> Vec<CompletionCandidate> {
    let Some(manifest) = manifest() else { return Vec::new() };
    candidates(manifest.applications.keys().cloned().collect::<Vec<_>>().into_iter().chain(service_names(manifest)))
}

fn service_names(manifest: Manifest) -> Vec<String> {
    let shared = [manifest.redis.map(|_| "redis"), manifest.pubsub.map(|_| "pubsub")];
    let shared = shared.into_iter().flatten().map(str::to_owned);
    manifest.databases.into_keys().chain(shared).chain(manifest.tools.into_keys()).collect()
}

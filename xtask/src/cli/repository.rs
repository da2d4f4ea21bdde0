//! What serves the repository itself: toolbox, render, completions.

use clap::{Args, Subcommand, ValueEnum};

/// Pinned builds of the servers for a machine without Docker and Nix
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask toolbox list\n  cargo xtask toolbox fetch")]
pub struct ToolboxArgs {
    #[command(subcommand)]
    pub verb: ToolboxVerb,
}

#[derive(Debug, Subcommand)]
pub enum ToolboxVerb {
    /// Show every build, and whether it is there
    #[command(after_help = "Example: cargo xtask toolbox list --json")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch builds before they are needed
    #[command(after_help = "Example: cargo xtask toolbox fetch postgresql")]
    Fetch {
        /// Builds to fetch [default: all of this platform]
        names: Vec<String>,
    },
}

/// Write the files that are generated from manifests and types
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask render\n  cargo xtask render --check\n  cargo xtask render compose --print"
)]
pub struct RenderArgs {
    /// What to write [default: all]
    #[arg(value_enum)]
    pub what: Vec<Rendered>,
    /// Write nothing; exit code 3 with a diff if a file is not what it should be
    #[arg(long)]
    pub check: bool,
    /// Write nothing; print to stdout
    #[arg(long, conflicts_with = "check")]
    pub print: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rendered {
    /// config/stack.schema.json
    Schema,
    /// .env.example and .env.<stack>.example
    EnvExample,
    /// docker/<stack>/compose.yaml
    Compose,
}

/// Print a script that completes `cargo xtask` in your shell, names of databases included
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  echo 'source <(cargo xtask completions bash)' >> ~/.bashrc\n  \
    cargo xtask completions fish > ~/.config/fish/completions/cargo-xtask.fish")]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    pub shell: CompletionShell,
    /// Words so far, given by the script itself
    #[arg(last = true, hide = true)]
    pub words: Vec<std::ffi::OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    Bash,
    Zsh,
    Fish,
}

//! `token`: creates the bearer token of remote components, and prints the digest that configures them.

use super::private_file::warn_if_shared;
use super::{End, print};
use crate::invoke_token;
use clap::Args;
use prefix_tar::protocol::configuration::INVOKE_TOKEN_SHA256;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  orchestrator token --token-file ./token        prints INVOKE_TOKEN_SHA256=... for the component";

/// Create a bearer token for components that run elsewhere, and print the digest to configure them with
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Token {
    /// Token file; if missing, created with owner-only access
    #[arg(long, value_name = "FILE", default_value = "./prefix-tar-token")]
    token_file: PathBuf,
}

impl Token {
    pub(super) fn run(&self) -> anyhow::Result<End> {
        let token = if self.token_file.exists() {
            warn_if_shared(&self.token_file);
            invoke_token::read(&self.token_file)?
        } else {
            let token = invoke_token::generate()?;
            invoke_token::write(&token, &self.token_file)?;
            token
        };
        print(&format!("{INVOKE_TOKEN_SHA256}={}", token.digest()));
        Ok(End::Done)
    }
}

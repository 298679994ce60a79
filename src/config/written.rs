//! Writes the configuration as TOML, with every default filled in. Parsing the result gives the same
//! configuration.

use super::{Config, Error};

impl Config {
    /// Returns the whole configuration except passwords.
    pub fn to_toml(&self) -> Result<String, Error> {
        toml::to_string(&self.raw).map_err(|error| Error(error.to_string()))
    }

    /// Returns the transports with a password in the configuration, which [`to_toml`](Config::to_toml)
    /// leaves out.
    pub fn with_password(&self) -> impl Iterator<Item = &str> {
        let transports = self.raw.transport.iter();
        transports
            .filter(|(_, transport)| transport.password.is_some())
            .map(|(name, _)| name.get_ref().as_str())
    }
}

#[cfg(test)]
mod tests;

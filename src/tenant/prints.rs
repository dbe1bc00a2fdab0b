//! Short names for the rules by which a tenant's credentials are read and judged. A record that has the same ones was judged
//! by the same rules, so its verdict still counts (`doorward check --against`). Made when a configuration loads; nothing is
//! decided by them while the gateway serves.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::Tenant;

/// Names for a tenant's rules. Builds of the gateway may name the same rules differently; equal names mean equal rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prints {
    /// Where credentials, ids and names stand, and which of them mean nobody.
    pub places: Print,
    /// What claims and sessions must say.
    pub claims: Print,
    /// Which keys there are, with their times.
    pub keys: Print,
}

/// One name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print([u8; 4]);

impl Prints {
    /// The names of a tenant's rules.
    pub fn of(tenant: &Tenant) -> Self {
        let key = |digest: &mut Digesting| {
            for key in tenant.keys.own() {
                let (algorithm, window) = (format!("{:?}", key.algorithm), (key.not_before, key.not_after));
                (&key.id, &key.formats, algorithm, &key.kid, window, key.fingerprint).hash(digest);
            }
            // What they publish is theirs to change.
            tenant.keys.remotes().iter().for_each(|remote| (&remote.source.url, remote.algorithm.map(|a| format!("{a:?}"))).hash(digest));
        };
        Self {
            places: print(|digest| (&tenant.places, &tenant.names, &tenant.exempt_ids).hash(digest)),
            claims: print(|digest| (&tenant.claims, &tenant.sessions).hash(digest)),
            keys: print(key),
        }
    }
}

impl fmt::Display for Prints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One of these stands in every record.
        [&self.places, &self.claims].into_iter().try_for_each(|print| print.fmt(f).and_then(|()| f.write_str(".")))?;
        self.keys.fmt(f)
    }
}

impl fmt::Display for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 8];
        hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Prints {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.').map(|part| {
            let mut bytes = [0; 4];
            hex::decode_to_slice(part, &mut bytes).map(|()| Print(bytes)).map_err(|_| ())
        });
        let mut next = || parts.next().ok_or(())?;
        let prints = Self { places: next()?, claims: next()?, keys: next()? };
        if parts.next().is_some() { Err(()) } else { Ok(prints) }
    }
}

fn print(hashed: impl FnOnce(&mut Digesting)) -> Print {
    let mut digest = Digesting(Sha256::new());
    hashed(&mut digest);
    let mut bytes = [0; 4];
    bytes.iter_mut().zip(digest.0.finalize()).for_each(|(to, from)| *to = from);
    Print(bytes)
}

/// Takes what `#[derive(Hash)]` says of a value into a digest that is the same in every process.
struct Digesting(Sha256);

impl Hasher for Digesting {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Not asked for: the whole digest is.
    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_are_read_back_and_nothing_else_is() {
        let prints = Prints { places: print(|d| 1.hash(d)), claims: print(|d| "a".hash(d)), keys: print(|d| "b".hash(d)) };
        assert_eq!(prints.to_string().parse(), Ok(prints));
        assert_ne!(prints.claims, prints.keys);
        for wrong in ["", "00000000", "00000000.00000000.0000000", "00000000.00000000.00000000.00000000", "00000000.x.00000000"] {
            assert_eq!(wrong.parse::<Prints>(), Err(()), "{wrong}");
        }
    }
}

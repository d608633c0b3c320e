//! The keys of each table: those of this version, and those that a later one will know.

/// A table's keys.
#[derive(Debug)]
pub(super) struct Schema {
    /// As messages call the table.
    pub(super) title: &'static str,
    pub(super) keys: &'static [&'static str],
    /// Keys of heddle's interface that this version refuses.
    pub(super) later: &'static [&'static str],
}

pub(super) const ROOT: Schema = Schema {
    title: "the top level",
    keys: &["host", "network", "port"],
    later: &["underlay", "remote", "peer", "service", "sa", "encryption", "cluster", "dns"],
};

pub(super) const HOST: Schema = Schema {
    title: "[host]",
    keys: &["name", "workers", "state", "api", "memory", "netns"],
    later: &["metrics"],
};

pub(super) const NETWORK: Schema = Schema {
    title: "[[network]]",
    keys: &[
        "name",
        "driver",
        "parent",
        "io",
        "vlan",
        "trunk",
        "native",
        "subnets",
        "gateway",
        "gateway6",
        "ip_range",
        "reserved",
        "internal",
        "isolated",
        "anti_spoof",
        "mtu",
        "ageing",
        "mac_limit",
    ],
    later: &["vni", "encrypted", "unknown_neighbor"],
};

pub(super) const PORT: Schema = Schema {
    title: "[[port]]",
    keys: &[
        "network", "name", "kind", "io", "netns", "device", "address", "mac", "aliases", "limits",
    ],
    later: &["acl", "mirror_to"],
};

pub(super) const LIMITS: Schema =
    Schema { title: "limits", keys: &["storm"], later: &["rate", "burst"] };

impl Schema {
    /// The known key that looks most like `key`, if one looks enough like it.
    pub(super) fn nearest(&self, key: &str) -> Option<&'static str> {
        nearest(key, self.keys.iter().chain(self.later).copied())
    }
}

/// The candidate that is the fewest edits away from `word`: at most a third of its letters, and
/// one in any case.
pub(super) fn nearest<'c>(
    word: &str,
    candidates: impl Iterator<Item = &'c str>,
) -> Option<&'c str> {
    // No key is that long, and the distance costs the product of the lengths.
    let length = word.chars().take(64).count();
    if length == 64 {
        return None;
    }
    let word = word.to_lowercase();
    let distance = |candidate: &&str| strsim::damerau_levenshtein(&word, candidate);
    let best = candidates.min_by_key(distance)?;
    (distance(&best) <= (length / 3).max(1)).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_recognised() {
        assert_eq!(NETWORK.nearest("subnet"), Some("subnets"));
        assert_eq!(NETWORK.nearest("MTU"), Some("mtu"));
        assert_eq!(NETWORK.nearest("isloated"), Some("isolated"));
        assert_eq!(NETWORK.nearest("vlans"), Some("vlan"));
        assert_eq!(NETWORK.nearest("parnet"), Some("parent"));
        assert_eq!(PORT.nearest("oi"), Some("io"));
        assert_eq!(NETWORK.nearest("colour"), None);
        assert_eq!(NETWORK.nearest(&"x".repeat(1 << 20)), None);
    }
}

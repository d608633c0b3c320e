//! Networks and endpoints at run time.

use std::fmt;

use serde_json::Value;

use super::{Daemon, Error};
use crate::config::{self, Problem};
use crate::model::{Model, Origin, Plan, Skipped, Stored};
use crate::store::Edit;

/// The kinds of objects that can be made at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With the keys of `[[network]]`.
    Network,
    /// With the keys of `[[port]]`.
    Endpoint,
}

/// Endpoints that are named when a network can't be removed.
const MOST_NAMED: usize = 5;

impl Daemon {
    /// An object as it is in force: its keys with all defaults, what it was given, and whom it
    /// belongs to.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn inspect(&self, kind: Kind, name: &str) -> Result<Value, Error> {
        let model = self.switch.inventory.model();
        let found = match kind {
            Kind::Network => model.networks.get(name).map(|network| {
                let mut json = network.spec.to_json();
                json["origin"] = serde_json::json!(network.origin);
                json["gateway_mac"] = network.gateway_mac.to_string().into();
                json["endpoints"] = model.endpoints_of(name).map(|e| &*e.spec.name).collect();
                json
            }),
            Kind::Endpoint => model.endpoints.get(name).map(|endpoint| {
                let mut json = endpoint.spec.to_json();
                json["origin"] = serde_json::json!(endpoint.origin);
                json["mac"] = endpoint.mac.to_string().into();
                json["address"] = endpoint.addresses.iter().map(ToString::to_string).collect();
                json
            }),
        };
        found.ok_or_else(|| Error::NotFound { kind, name: name.to_owned() })
    }

    /// Makes an object from a body with its keys. It persists, and its name is the answer.
    ///
    /// # Errors
    ///
    /// [`enum@Error`]; but for [`Error::Switch`], nothing was made.
    pub fn create(&mut self, kind: Kind, body: Value) -> Result<String, Error> {
        kind.check(&body)?;
        let object = kind.stored(body);
        let name = object.name().to_owned();
        if let Some(origin) = self.origin(kind, &name) {
            return Err(Error::Exists { kind, name, origin });
        }
        self.put(kind, object)?;
        tracing::info!(%kind, name, "made");
        Ok(name)
    }

    /// Changes the keys that `patch` gives; a key of `null` gets its default again (RFC 7396).
    ///
    /// # Errors
    ///
    /// [`enum@Error`]; but for [`Error::Switch`], nothing was changed.
    pub fn update(&mut self, kind: Kind, name: &str, patch: Value) -> Result<(), Error> {
        let mut body = self.own(kind, name)?.clone();
        merge(&mut body, patch);
        kind.check(&body)?;
        let object = kind.stored(body);
        if object.name() != name {
            let found = format!("`{}`", object.name());
            return Err(Error::Renamed { kind, name: name.to_owned(), found });
        }
        self.put(kind, object)?;
        tracing::info!(%kind, name, "changed");
        Ok(())
    }

    /// Removes an object that was made at run time. Its addresses rest before they are given
    /// again.
    ///
    /// # Errors
    ///
    /// [`enum@Error`]; but for [`Error::Switch`], nothing was removed.
    pub fn remove(&mut self, kind: Kind, name: &str) -> Result<(), Error> {
        self.own(kind, name)?;
        if kind == Kind::Network {
            let on_it = self.switch.inventory.model().endpoints_of(name);
            let endpoints: Vec<String> =
                on_it.take(MOST_NAMED).map(|endpoint| endpoint.spec.name.clone()).collect();
            if !endpoints.is_empty() {
                return Err(Error::InUse { name: name.to_owned(), endpoints });
            }
        }
        let mut stored = self.stored.clone();
        stored.retain(|object| !kind.is(object, name));
        self.step(stored, kind.removal(name), |_| Ok(()))?;
        tracing::info!(%kind, name, "removed");
        Ok(())
    }

    /// Puts an object beside the others, or in the place of the one of the same name.
    fn put(&mut self, kind: Kind, object: Stored) -> Result<(), Error> {
        let name = object.name().to_owned();
        let mut stored = self.stored.clone();
        match stored.iter_mut().find(|other| kind.is(other, &name)) {
            Some(other) => *other = object.clone(),
            None => stored.push(object.clone()),
        }
        self.step(stored, Edit::Put(object), |plan| {
            // It may have been left out beside one that had been left out before.
            let there = kind.origin(plan.next.model(), &name).is_some();
            there.then_some(()).ok_or_else(|| Error::NotFound { kind, name: name.clone() })
        })
    }

    /// Goes on with `stored`, if all that is in force stays so.
    fn step(
        &mut self,
        stored: Vec<Stored>,
        edit: Edit,
        check: impl Fn(&Plan) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (plan, skipped) =
            self.plan_around(&self.config, &stored, |object| self.is_unplaced(object))?;
        if let Some(problem) = skipped.iter().find_map(|skipped| self.new_clash(skipped)) {
            return Err(problem);
        }
        check(&plan)?;
        self.carry_out(plan, &[edit])?;
        (self.stored, self.skipped) = (stored, skipped);
        Ok(())
    }

    /// The error of an object that has not been left out before. What the file owns is no error:
    /// it was left out when the file came to own it.
    fn new_clash(&self, skipped: &Skipped) -> Option<Error> {
        let Skipped::Clash { name, problem } = skipped else { return None };
        let same = |old: &Skipped| matches!(old, Skipped::Clash { name: old, .. } if old == name);
        let (name, problem) = (name.clone(), problem.clone());
        (!self.skipped.iter().any(same)).then_some(Error::Clash { name, problem })
    }

    /// The body of an object that was made at run time.
    fn own(&self, kind: Kind, name: &str) -> Result<&Value, Error> {
        if self.origin(kind, name) == Some(Origin::File) {
            return Err(Error::OwnedByFile { kind, name: name.to_owned() });
        }
        let object = self.stored.iter().find(|object| kind.is(object, name));
        match object {
            Some(Stored::Network(body) | Stored::Endpoint(body)) => Ok(body),
            None => Err(Error::NotFound { kind, name: name.to_owned() }),
        }
    }

    fn origin(&self, kind: Kind, name: &str) -> Option<Origin> {
        kind.origin(self.switch.inventory.model(), name)
    }
}

impl Kind {
    fn origin(self, model: &Model, name: &str) -> Option<Origin> {
        match self {
            Self::Network => model.networks.get(name).map(|network| network.origin),
            Self::Endpoint => model.endpoints.get(name).map(|endpoint| endpoint.origin),
        }
    }

    fn stored(self, body: Value) -> Stored {
        match self {
            Self::Network => Stored::Network(body),
            Self::Endpoint => Stored::Endpoint(body),
        }
    }

    fn is(self, object: &Stored, name: &str) -> bool {
        let same = match object {
            Stored::Network(_) => self == Self::Network,
            Stored::Endpoint(_) => self == Self::Endpoint,
        };
        same && object.name() == name
    }

    fn removal(self, name: &str) -> Edit {
        match self {
            Self::Network => Edit::RemoveNetwork(name.to_owned()),
            Self::Endpoint => Edit::RemoveEndpoint(name.to_owned()),
        }
    }

    /// Reads the body for itself, to say everything that is wrong with it.
    fn check(self, body: &Value) -> Result<(), Error> {
        let read: Result<(), Vec<Problem>> = match self {
            Self::Network => config::Network::from_json(body.clone()).map(drop),
            Self::Endpoint => config::Port::from_json(body.clone()).map(drop),
        };
        read.map_err(|problems| Error::Invalid { kind: self, problems })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "network",
            Self::Endpoint => "endpoint",
        })
    }
}

/// RFC 7396, 2: what `patch` names is replaced, or removed where it is null.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Cases of RFC 7396, appendix A.
    #[test]
    fn patches_are_merged() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (mut target, patch, expected) in cases {
            merge(&mut target, patch);
            assert_eq!(target, expected);
        }
    }
}

//! `heddle network` and `heddle endpoint`: the objects of the configuration, at run time.

use hyper::Method;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::args::{EndpointKeys, NetworkKeys, Object};
use super::client::Client;
use super::show::{pretty, text};
use super::{Failure, print};
use crate::show::Topic;

/// What an object is made of on the command line.
pub(super) trait Keys {
    /// Where the API has these objects.
    const PATH: &'static str;
    /// What lists them.
    const LIST: Topic;
    /// A key that must be there, and what it is on the command line unless it is given.
    const USUAL: (&'static str, &'static str);

    /// The keys that were given, as the API takes them.
    fn json(&self) -> Map<String, Value>;
}

/// Does what a command asks for.
pub(super) fn run<K: Keys + clap::Args>(
    client: &Client,
    command: Object<K>,
) -> Result<(), Failure> {
    let path = |name: &str| format!("/v1/{}/{name}", K::PATH);
    match command {
        Object::Create { name, keys } => {
            let mut body = keys.json();
            body.insert("name".to_owned(), name.into());
            body.entry(K::USUAL.0).or_insert_with(|| K::USUAL.1.into());
            let path = format!("/v1/{}", K::PATH);
            print(pretty(&client.call(Method::POST, &path, Some(&Value::Object(body)))?)?)
        }
        Object::Update { name, unset, keys } => {
            let mut body = keys.json();
            body.extend(unset.into_iter().map(|key| (key, Value::Null)));
            let body = Value::Object(body);
            print(pretty(&client.call(Method::PATCH, &path(&name), Some(&body))?)?)
        }
        Object::Rm { names } => names
            .iter()
            .try_for_each(|name| client.call(Method::DELETE, &path(name), None).map(drop)),
        Object::Ls { json } => {
            let body = client.fetch(&format!("/v1/{}", K::LIST.name()))?;
            print(if json { pretty(&body)? } else { text(K::LIST, body)? })
        }
        Object::Inspect { name } => print(pretty(&client.fetch(&path(&name))?)?),
    }
}

impl Keys for NetworkKeys {
    const PATH: &'static str = "networks";
    const LIST: Topic = Topic::Networks;
    const USUAL: (&'static str, &'static str) = ("driver", "bridge");

    fn json(&self) -> Map<String, Value> {
        let reserved = self.reserved.iter().map(|(name, address)| (name.clone(), json!(address)));
        let reserved: Map<String, Value> = reserved.collect();
        given([
            ("driver", self.driver.as_ref().map(|driver| json!(driver))),
            ("parent", self.parent.as_ref().map(|parent| json!(parent))),
            ("io", self.io.as_ref().map(|io| json!(io))),
            ("vlan", self.vlan.map(|vlan| json!(vlan))),
            ("trunk", some_list(&self.trunk)),
            ("native", self.native.map(|native| json!(native))),
            ("subnets", some_list(&self.subnet)),
            ("gateway", some_list(&self.gateway)),
            ("gateway6", some_list(&self.gateway6)),
            ("ip_range", some_list(&self.ip_range)),
            ("reserved", (!reserved.is_empty()).then_some(Value::Object(reserved))),
            ("internal", self.internal.map(Value::Bool)),
            ("isolated", self.isolated.map(Value::Bool)),
            ("anti_spoof", self.anti_spoof.map(Value::Bool)),
            ("mtu", self.mtu.map(|mtu| json!(mtu))),
            ("ageing", self.ageing.as_ref().map(|ageing| json!(ageing))),
            ("mac_limit", self.mac_limit.map(|limit| json!(limit))),
        ])
    }
}

impl Keys for EndpointKeys {
    const PATH: &'static str = "endpoints";
    const LIST: Topic = Topic::Ports;
    const USUAL: (&'static str, &'static str) = ("kind", "tap");

    fn json(&self) -> Map<String, Value> {
        given([
            ("network", self.network.as_ref().map(|network| json!(network))),
            ("kind", self.kind.as_ref().map(|kind| json!(kind))),
            ("io", self.io.as_ref().map(|io| json!(io))),
            ("netns", self.netns.as_ref().map(|netns| json!(netns))),
            ("device", self.device.as_ref().map(|device| json!(device))),
            ("address", some_list(&self.address)),
            ("mac", self.mac.as_ref().map(|mac| json!(mac))),
            ("aliases", some_list(&self.alias)),
            ("limits", self.storm.as_ref().map(|storm| json!({ "storm": storm }))),
        ])
    }
}

fn some_list<T: Serialize>(values: &[T]) -> Option<Value> {
    (!values.is_empty()).then(|| json!(values))
}

fn given<const N: usize>(keys: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let given = keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    given.collect()
}

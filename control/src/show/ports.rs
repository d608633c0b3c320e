//! `show ports`: every port, how it is served, and what it carried.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::table::{Align, Table, or_dash};
use crate::model::{Endpoint, Model, Network, Origin, Uplink};
use crate::plane::{Device, Owner, sum};
use crate::switch::Switch;

/// The body of `/v1/ports`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// By network and name.
    pub ports: Vec<Port>,
}

/// One port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The endpoint's name, or that of a device which networks are plugged into.
    pub name: String,
    /// Its network, or all that are plugged into it.
    pub network: String,
    /// `file` or `api`; `network` of a device that is there for its networks.
    pub origin: String,
    /// `tap`, `veth`, `device`, `memory` or `pcap`, or `uplink`.
    pub kind: String,
    /// How its device is driven, and why so, where there is a choice.
    pub io: Option<String>,
    /// The device's name in its namespace.
    pub device: Option<String>,
    /// The namespace's name or path; none is heddle's own.
    pub netns: Option<String>,
    /// Station address; of an uplink, what the host has there.
    pub mac: String,
    /// Addresses with prefix lengths.
    pub addresses: Vec<String>,
    /// Whether frames pass.
    pub state: State,
    /// Why it waits.
    pub reason: Option<String>,
    /// Frames that came in, super-packets whole.
    pub rx_packets: u64,
    /// Their bytes, FCS not included.
    pub rx_bytes: u64,
    /// Frames that went out.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames that came in by it and went no further.
    pub drops: u64,
}

/// How a port is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Frames pass.
    Serving,
    /// Its container or device is not there.
    #[default]
    Waiting,
}

impl View {
    /// The ports as they are now.
    pub fn of(switch: &Switch) -> Self {
        let mut ports: Vec<Port> = switch.ports.iter().map(|(_, port)| row(switch, port)).collect();
        ports.sort_by(|a, b| (&a.network, &a.name).cmp(&(&b.network, &b.name)));
        Self { ports }
    }

    /// The same for people.
    pub fn table(&self) -> Table {
        use Align::{Left, Right};
        let columns = [
            ("port", Left),
            ("network", Left),
            ("from", Left),
            ("device", Left),
            ("mac", Left),
            ("addresses", Left),
            ("rx packets", Right),
            ("rx bytes", Right),
            ("tx packets", Right),
            ("tx bytes", Right),
            ("drops", Right),
            ("state", Left),
        ];
        let mut table = Table::new(&columns, "no ports");
        for port in &self.ports {
            table.row([
                port.name.clone(),
                port.network.clone(),
                port.origin.clone(),
                port.place(),
                port.mac.clone(),
                or_dash(Some(&port.addresses.join(" "))),
                port.rx_packets.to_string(),
                port.rx_bytes.to_string(),
                port.tx_packets.to_string(),
                port.tx_bytes.to_string(),
                port.drops.to_string(),
                port.condition(),
            ]);
        }
        table
    }
}

impl Port {
    fn place(&self) -> String {
        match (&self.device, &self.netns) {
            (Some(device), Some(netns)) => format!("{device} in {netns}"),
            (Some(device), None) => device.clone(),
            (None, _) => self.kind.clone(),
        }
    }

    fn condition(&self) -> String {
        match (self.state, &self.reason) {
            (State::Serving, _) => {
                let by = self.io.as_ref().map(|io| format!(" by {io}"));
                format!("serving{}", by.unwrap_or_default())
            }
            (State::Waiting, None) => "waiting".to_owned(),
            (State::Waiting, Some(reason)) => format!("waiting: {reason}"),
        }
    }
}

/// How `origin` is called for people and programs.
pub(super) fn origin(origin: Origin) -> String {
    match origin {
        Origin::File => "file",
        Origin::Api => "api",
    }
    .to_owned()
}

fn row(switch: &Switch, port: &crate::plane::Port) -> Port {
    let (state, reason) = match &port.device {
        Device::Waiting { reason, .. } => (State::Waiting, Some(reason.clone())),
        Device::Tap { .. } | Device::Driven { .. } | Device::Memory(_) => (State::Serving, None),
    };
    let io = match &port.device {
        Device::Driven { drive, .. } => Some(drive.to_string()),
        _ => None,
    };
    let row = Port {
        name: port.name().to_owned(),
        state,
        reason,
        io,
        rx_packets: sum(&port.counters, |c| c.rx_packets.read()),
        rx_bytes: sum(&port.counters, |c| c.rx_bytes.read()),
        tx_packets: sum(&port.counters, |c| c.tx_packets.read()),
        tx_bytes: sum(&port.counters, |c| c.tx_bytes.read()),
        drops: sum(&port.counters, |c| c.drops.total()),
        ..Port::default()
    };
    match &port.owner {
        Owner::Endpoint(endpoint) => of_endpoint(row, endpoint),
        Owner::Uplink(uplink) => of_uplink(row, uplink, switch.inventory.model(), &port.device),
    }
}

fn of_endpoint(row: Port, endpoint: &Endpoint) -> Port {
    let device = &endpoint.spec.device;
    Port {
        network: endpoint.spec.network.clone(),
        origin: origin(endpoint.origin),
        kind: device.kind().to_owned(),
        device: device.name().map(str::to_owned),
        netns: device.netns().map(ToString::to_string),
        mac: endpoint.mac.to_string(),
        addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
        ..row
    }
}

fn of_uplink(row: Port, uplink: &Uplink, model: &Model, device: &Device) -> Port {
    let plugged = |network: &&Arc<Network>| {
        network.spec.parent.as_ref().is_some_and(|parent| parent.device == uplink.device)
    };
    let networks = model.networks.values().filter(plugged).map(|n| &*n.spec.name);
    Port {
        network: networks.collect::<Vec<_>>().join(" "),
        origin: "network".to_owned(),
        kind: "uplink".to_owned(),
        device: Some(uplink.device.clone()),
        mac: match device {
            Device::Driven { link, .. } => link.mac.to_string(),
            _ => String::new(),
        },
        ..row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str) -> Port {
        Port {
            name: name.to_owned(),
            network: "web".to_owned(),
            origin: "file".to_owned(),
            kind: "tap".to_owned(),
            io: None,
            device: Some("eth0".to_owned()),
            netns: Some("box".to_owned()),
            mac: "02:42:0a:00:09:41".to_owned(),
            addresses: vec!["10.0.9.65/24".to_owned(), "fd00:9::65/64".to_owned()],
            state: State::Serving,
            reason: None,
            rx_packets: 1,
            rx_bytes: 98,
            tx_packets: 12,
            tx_bytes: 3456,
            drops: 0,
        }
    }

    #[test]
    fn ports_are_shown_in_columns() {
        let waiting = Port {
            state: State::Waiting,
            reason: Some("no namespace".to_owned()),
            addresses: vec![],
            kind: "memory".to_owned(),
            device: None,
            netns: None,
            ..port("b")
        };
        let driven = Port { io: Some("af_packet".to_owned()), ..port("c") };
        let view = View { ports: vec![port("web-1"), waiting, driven] };
        let expected = "\
PORT   NETWORK  FROM  DEVICE       MAC                ADDRESSES                   RX PACKETS  RX BYTES  TX PACKETS  TX BYTES  DROPS  STATE
web-1  web      file  eth0 in box  02:42:0a:00:09:41  10.0.9.65/24 fd00:9::65/64           1        98          12      3456      0  serving
b      web      file  memory       02:42:0a:00:09:41  -                                    1        98          12      3456      0  waiting: no namespace
c      web      file  eth0 in box  02:42:0a:00:09:41  10.0.9.65/24 fd00:9::65/64           1        98          12      3456      0  serving by af_packet
";
        assert_eq!(view.table().to_string(), expected);
    }

    #[test]
    fn programs_read_what_they_are_given() {
        let view = View { ports: vec![port("a")] };
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["ports"][0]["state"], "serving");
        assert_eq!(serde_json::from_value::<View>(json).unwrap(), view);
    }
}

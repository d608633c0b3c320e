//! Writes the fuzz targets' first inputs: `cargo run -p tests --example corpus`, from the
//! workspace's root. The same ones each time.

use std::fs;
use std::path::Path;

use tests::hostile::Generator;

/// Scripts, of one frame and more each.
const SCRIPTS: usize = 24;

/// Longer frames are left out, so that inputs stay small.
const LONGEST: usize = 400;

/// Tables that a configuration is put together from, good ones and bad ones.
const PARTS: &[&str] = &[
    "[host]\nname = \"host-a\"\nworkers = [2, 3]\nmemory = \"256MiB\"\n",
    "[host]\nworkers = \"auto\"\nstate = \"/tmp/a\"\napi = \"/tmp/a.sock\"\n",
    "[host]\nworker = 1\nmemory = \"1 parsec\"\n",
    "[[network]]\nname = \"web\"\ndriver = \"bridge\"\nsubnets = [\"10.0.9.0/24\", \"fd00:9::/64\"]\n\
     gateway = \"10.0.9.254\"\ngateway6 = \"fd00:9::ff\"\nip_range = [\"10.0.9.64/26\"]\n\
     reserved = { router = \"10.0.9.9\" }\ninternal = true\nisolated = true\n",
    "[[network]]\nname = \"web\"\ndriver = \"bridge\"\nmtu = 9000\nageing = \"2m\"\nmac_limit = 7\n\
     anti_spoof = false\n",
    "[[network]]\nname = \"web\"\ndriver = \"overlay\"\nsubnets = [\"10.0.9.1/24\", \"10.0.9.0/33\"]\n",
    "[[network]]\nname = \"small\"\ndriver = \"bridge\"\nsubnets = [\"10.0.8.0/30\", \"::/0\"]\n",
    "[[port]]\nnetwork = \"web\"\nname = \"web-1\"\nkind = \"tap\"\nnetns = \"web-1\"\n\
     device = \"eth0\"\naddress = [\"10.0.9.65/24\", \"fd00:9::65\"]\nmac = \"02:42:0a:00:09:41\"\n\
     aliases = [\"db\"]\nlimits = { storm = \"1000pps\" }\n",
    "[[port]]\nnetwork = \"web\"\nname = \"web-2\"\nkind = \"memory\"\n",
    "[[port]]\nnetwork = \"small\"\nname = \"s-1\"\nkind = \"pcap\"\naddress = [\"10.0.8.3\"]\n",
    "[[port]]\nnetwork = \"none\"\nname = \"../x\"\nkind = \"veth\"\nmac = \"ff:ff\"\n",
    "[[network]]\nname = \"web\"\ndriver = \"vlan\"\nparent = \"eth1\"\nvlan = 10\nio = \"af_xdp\"\n\
     subnets = [\"10.0.9.0/24\", \"fd00:9::/64\"]\nip_range = \"10.0.9.64/28\"\n\
     reserved = { router = \"10.0.9.1\", router6 = \"fd00:9::1\" }\n",
    "[[network]]\nname = \"all\"\ndriver = \"vlan\"\nparent = \"eth1\"\ntrunk = [10, 20]\nnative = 1\n",
    "[[network]]\nname = \"house\"\ndriver = \"bridge\"\nparent = \"eth1\"\nmtu = 9000\n",
    "[[port]]\nnetwork = \"all\"\nname = \"vm\"\nkind = \"veth\"\nnetns = \"vm\"\nio = \"af_packet\"\n",
    "[[port]]\nnetwork = \"house\"\nname = \"r\"\nkind = \"device\"\ndevice = \"r0\"\n",
    "[[network]]\nname = \"one\"\ndriver = \"vlan\"\nparent = \"eth1\"\nvlan = 1\nio = \"af_packet\"\n",
    "[[network]]\nname = \"x\"\ndriver = \"vlan\"\nvlan = 4095\ntrunk = []\nnative = 0\n",
    "[[port]\nname = '''\n\u{1b}[31m\u{e9}\n''' = 1e999\n",
];

fn main() -> std::io::Result<()> {
    frames(Path::new("fuzz/corpus/frame"))?;
    configurations(Path::new("fuzz/corpus/config"))
}

fn frames(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut generator = Generator::new(257);
    for number in 0..SCRIPTS {
        let mut script = Vec::new();
        let mut shots = 0;
        while shots <= number % 7 {
            let shot = generator.shot();
            if shot.frame.len() <= LONGEST {
                shot.write_to(&mut script);
                shots += 1;
            }
        }
        fs::write(directory.join(format!("generated-{number:02}")), script)?;
    }
    Ok(())
}

/// Each part alone, and with the ones that follow it.
fn configurations(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    for first in 0..PARTS.len() {
        for count in [1, 5] {
            let parts = PARTS.iter().cycle().skip(first).take(count);
            let text = parts.copied().collect::<String>();
            fs::write(directory.join(format!("generated-{first:02}-{count}")), text)?;
        }
    }
    Ok(())
}

//! What a packet still owes to the wire: its checksum, and the cutting of a super-packet.
//!
//! The content is that of a virtio-net header (virtio 1.2, 5.1.6.2; `linux/virtio_net.h`): steps
//! keep it right when they change headers, and the last port settles what its device can't.

/// How far the layer 4 checksum of a packet is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Checksum {
    /// The field claims to be complete and nobody has looked.
    #[default]
    Unverified,
    /// The field is complete and was found right by a device or by us.
    Verified,
    /// The field holds the pseudo-header's sum only; the sum over the bytes from
    /// [`Offload::csum_start`] to the end is still to be folded in. The contents are trusted.
    Partial,
}

/// Into what a super-packet is to be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Gso {
    /// Not a super-packet.
    #[default]
    None,
    /// TCP segments over IPv4.
    Tcp4,
    /// TCP segments over IPv6.
    Tcp6,
    /// UDP datagrams (over IPv4 or IPv6), each with its own UDP header.
    Udp,
}

/// The offload state of one packet, 8 bytes. Offsets count from the frame's first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Offload {
    /// How far the layer 4 checksum is right.
    pub checksum: Checksum,
    /// Whether, and into what, the packet is to be cut.
    pub gso: Gso,
    /// Payload bytes of each segment but the last; zero without [`Offload::gso`].
    pub gso_size: u16,
    /// Where a partial checksum starts to sum, in bytes from the frame's start.
    pub csum_start: u16,
    /// Where the checksum field is, in bytes from [`Offload::csum_start`].
    pub csum_offset: u16,
}

const _: () = assert!(size_of::<Offload>() == 8);

impl Offload {
    /// A frame as it comes from a plain wire: nothing owed, nothing known.
    pub const PLAIN: Self = Self {
        checksum: Checksum::Unverified,
        gso: Gso::None,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// Whether the packet is to be cut before it meets a wire.
    #[inline(always)]
    pub const fn is_super(self) -> bool {
        !matches!(self.gso, Gso::None)
    }
}

/// What a port's device settles by itself; the rest is settled before transmission.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// Completes partial checksums, or hands them to a kernel that understands them.
    pub checksum: bool,
    /// Takes TCP super-packets whole.
    pub tcp_gso: bool,
    /// Takes UDP super-packets whole (`UDP_SEGMENT`, kernel 6.2 and later on TAP).
    pub udp_gso: bool,
}

impl Capabilities {
    /// A kernel device with a virtio-net header and every offload.
    pub const VNET: Self = Self { checksum: true, tcp_gso: true, udp_gso: true };

    /// Whether a packet with this state can be handed over as it is.
    #[inline(always)]
    pub const fn takes(self, offload: Offload) -> bool {
        let whole = match offload.gso {
            Gso::None => true,
            Gso::Tcp4 | Gso::Tcp6 => self.tcp_gso,
            Gso::Udp => self.udp_gso,
        };
        whole && (self.checksum || !matches!(offload.checksum, Checksum::Partial))
    }
}

//! The address space: one window per state space, one sub-window per allocation.
//!
//! A shared address is an offset in the block's memory; with a block's rank in its upper bits it means that block of
//! the cluster. Adding [`SHARED`] makes it generic. Windows lie far apart, so that running over one's end hits nothing.
use crate::parse::Space;

/// Each allocation of global memory has a window of 2^36 bytes.
const WINDOW_BITS: u32 = 36;
/// Module variables.
pub const VARIABLES: u64 = 0x8000 << WINDOW_BITS;
pub const SHARED: u64 = 0x9000 << WINDOW_BITS;
pub const LOCAL: u64 = 0xa000 << WINDOW_BITS;
pub const PARAMETERS: u64 = 0xb000 << WINDOW_BITS;
/// Shared memory that the system keeps for itself, so that address 0 is nobody's.
pub const SHARED_RESERVED: u64 = 1024;
/// The block's rank plus 1 stands from this bit on in an address of the cluster's shared memory.
const RANK_SHIFT: u32 = 24;

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    Global {
        allocation: usize,
        offset: u64,
    },
    Variable {
        offset: u64,
    },
    /// `rank` is none for the block that runs the instruction.
    Shared {
        rank: Option<usize>,
        offset: u64,
    },
    Local {
        offset: u64,
    },
    Parameter {
        offset: u64,
    },
}

/// Allocations are aligned to this, and to no higher power of two.
pub const ALIGN: u64 = 256;

/// The start of an allocation.
pub fn allocation_start(index: usize) -> u64 {
    ((index as u64 + 1) << WINDOW_BITS) + ALIGN
}

/// What `address` of `space` names; none where it is no address of that space.
pub fn locate(space: Space, address: u64) -> Option<Location> {
    match space {
        Space::Shared | Space::SharedCluster => Some(shared(address)),
        Space::Local => Some(Location::Local { offset: address }),
        Space::Parameter => Some(Location::Parameter { offset: address }),
        Space::Constant => variable(address),
        Space::Global => variable(address).or_else(|| global(address)),
        Space::Generic => generic(address),
    }
}

fn generic(address: u64) -> Option<Location> {
    match address >> WINDOW_BITS {
        0x9000 => Some(shared(address - SHARED)),
        0xa000 => Some(Location::Local { offset: address - LOCAL }),
        0xb000 => Some(Location::Parameter { offset: address - PARAMETERS }),
        _ => variable(address).or_else(|| global(address)),
    }
}

fn variable(address: u64) -> Option<Location> {
    (address >> WINDOW_BITS == VARIABLES >> WINDOW_BITS).then(|| Location::Variable { offset: address - VARIABLES })
}

fn global(address: u64) -> Option<Location> {
    let window = address >> WINDOW_BITS;
    let offset = address & ((1 << WINDOW_BITS) - 1);
    (1..0x8000).contains(&window).then(|| Location::Global { allocation: window as usize - 1, offset })
}

fn shared(address: u64) -> Location {
    let rank = (address >> RANK_SHIFT) as usize;
    Location::Shared { rank: rank.checked_sub(1), offset: address & ((1 << RANK_SHIFT) - 1) }
}

/// `cvta` from `space`; `rank` is the block's own.
pub fn to_generic(space: Space, address: u64, rank: usize) -> u64 {
    match space {
        Space::Shared | Space::SharedCluster if address >> RANK_SHIFT == 0 => SHARED + in_block(address, rank),
        Space::Shared | Space::SharedCluster => SHARED + address,
        Space::Local => LOCAL + address,
        Space::Parameter => PARAMETERS + address,
        Space::Global | Space::Constant | Space::Generic => address,
    }
}

/// `cvta.to`: the reverse; an address of another window stays what it is, to be found wrong when it is used.
pub fn from_generic(space: Space, address: u64, rank: usize) -> u64 {
    let start = match space {
        Space::Shared | Space::SharedCluster => SHARED,
        Space::Local => LOCAL,
        Space::Parameter => PARAMETERS,
        Space::Global | Space::Constant | Space::Generic => return address,
    };
    if address >> WINDOW_BITS != start >> WINDOW_BITS {
        return address;
    }
    let own = (rank as u64 + 1) << RANK_SHIFT;
    let offset = address - start;
    if start == SHARED && offset >> RANK_SHIFT == own >> RANK_SHIFT { offset - own } else { offset }
}

/// `mapa`: the same offset in the block of that rank.
pub fn in_block(address: u64, rank: usize) -> u64 {
    (rank as u64 + 1) << RANK_SHIFT | address & ((1 << RANK_SHIFT) - 1)
}

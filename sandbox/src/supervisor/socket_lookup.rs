//! Directs every TCP connection that arrives in a network namespace, whatever its address and port, to one listener: a
//! BPF program of the type `sk_lookup`, which the kernel runs to find the socket of a new connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::Context;
use nix::errno::Errno;
use nix::libc;

/// Commands of the system call.
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEMENT: libc::c_long = 2;
const PROGRAM_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;

const MAP_TYPE_SOCKMAP: u32 = 15;
const PROGRAM_TYPE_SK_LOOKUP: u32 = 30;
const ATTACH_TYPE_SK_LOOKUP: u32 = 36;

const HELPER_MAP_LOOKUP: i32 = 1;
const HELPER_SK_RELEASE: i32 = 86;
const HELPER_SK_ASSIGN: i32 = 124;

/// Offsets in the program's context.
const CONTEXT_FAMILY: i16 = 8;
const CONTEXT_PROTOCOL: i16 = 12;

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// Directs the connections of the network namespace `namespace` to `listener`, until the returned descriptor is closed.
pub(super) fn direct_all(listener: impl AsFd, namespace: impl AsFd) -> anyhow::Result<OwnedFd> {
    let map = MapCreate { map_type: MAP_TYPE_SOCKMAP, key_bytes: 4, value_bytes: 8, entries: 1, flags: 0 };
    let map = descriptor(call(MAP_CREATE, &map)).context("cannot create a BPF map")?;
    let (key, value) = (0_u32, u64::from(number(listener.as_fd().as_raw_fd())?));
    let update = MapUpdate {
        map: number(map.as_raw_fd())?,
        padding: 0,
        key: (&raw const key) as u64,
        value: (&raw const value) as u64,
        flags: 0,
    };
    call(MAP_UPDATE_ELEMENT, &update).context("cannot put the listener into a BPF map")?;
    let instructions = program(map.as_raw_fd());
    let load = ProgramLoad {
        program_type: PROGRAM_TYPE_SK_LOOKUP,
        instruction_count: u32::try_from(instructions.len())?,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"lambda_sandbox\0\0",
        interface: 0,
        attach_type: ATTACH_TYPE_SK_LOOKUP,
    };
    let program = descriptor(call(PROGRAM_LOAD, &load)).context("cannot load a BPF program")?;
    let link = LinkCreate {
        program: number(program.as_raw_fd())?,
        target: number(namespace.as_fd().as_raw_fd())?,
        attach_type: ATTACH_TYPE_SK_LOOKUP,
        flags: 0,
    };
    descriptor(call(LINK_CREATE, &link)).context("cannot attach a BPF program to a network namespace")
}

/// TCP over IPv4 is assigned to the socket in the map, and everything else is left to the kernel.
fn program(map: RawFd) -> [u64; 21] {
    let instruction = |code: u64, registers: u64, offset: i16, immediate: i32| {
        let [low, high] = offset.to_le_bytes();
        let immediate = u64::from(immediate.cast_unsigned());
        code | registers << 8 | u64::from(low) << 16 | u64::from(high) << 24 | immediate << 32
    };
    // The target register is in the lower four bits, the source register in the upper.
    let registers = |target: u64, source: u64| target | source << 4;
    let copy = |target, source| instruction(0xbf, registers(target, source), 0, 0);
    let load = |target, source, offset| instruction(0x61, registers(target, source), offset, 0);
    let call = |helper| instruction(0x85, 0, 0, helper);
    [
        copy(6, 1),
        load(2, 1, CONTEXT_FAMILY),
        instruction(0x55, registers(2, 0), 16, libc::AF_INET),
        load(2, 1, CONTEXT_PROTOCOL),
        instruction(0x55, registers(2, 0), 14, libc::IPPROTO_TCP),
        // The key 0, on the stack.
        instruction(0x62, registers(10, 0), -4, 0),
        // The map, as an immediate value of two instructions.
        instruction(0x18, registers(1, 1), 0, map),
        0,
        copy(2, 10),
        instruction(0x07, registers(2, 0), 0, -4),
        call(HELPER_MAP_LOOKUP),
        instruction(0x15, registers(0, 0), 7, 0),
        copy(7, 0),
        copy(1, 6),
        copy(2, 7),
        instruction(0xb7, registers(3, 0), 0, 0),
        call(HELPER_SK_ASSIGN),
        copy(1, 7),
        call(HELPER_SK_RELEASE),
        // Pass and exit.
        instruction(0xb7, registers(0, 0), 0, 1),
        instruction(0x95, 0, 0, 0),
    ]
}

fn call<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    let size = size_of::<T>();
    // SAFETY: `attributes` has the layout that the command reads, and all memory that it refers to is valid during the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size) };
    Ok(Errno::result(result)?)
}

fn descriptor(result: io::Result<libc::c_long>) -> anyhow::Result<OwnedFd> {
    let raw = RawFd::try_from(result?)?;
    // SAFETY: the command has just created this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn number(descriptor: RawFd) -> anyhow::Result<u32> {
    Ok(u32::try_from(descriptor)?)
}

//! Integer arithmetic, logic, shifts and bit fields.
use super::{
    Doubles1, Doubles2, Doubles3, DoublesByWords, DoublesByWords2, Narrowing1, Widening2, Words1, Words2, Words3, lanes,
};

pub fn words1(opcode: &str) -> Option<Words1> {
    Some(match opcode {
        "not.b32" => lanes!(|a| !a),
        "not.b16" => lanes!(|a| !a & 0xffff),
        "neg.s32" => lanes!(|a| a.wrapping_neg()),
        "neg.s16" => lanes!(|a| a.wrapping_neg() & 0xffff),
        "abs.s32" => lanes!(|a| (a as i32).wrapping_abs() as u32),
        "abs.s16" => lanes!(|a| (a as i16).wrapping_abs() as u16 as u32),
        "popc.b32" => lanes!(|a| a.count_ones()),
        "clz.b32" => lanes!(|a| a.leading_zeros()),
        "brev.b32" => lanes!(|a| a.reverse_bits()),
        "bfind.u32" => lanes!(|a| if a == 0 { u32::MAX } else { 31 - a.leading_zeros() }),
        "bfind.shiftamt.u32" => lanes!(|a| if a == 0 { u32::MAX } else { a.leading_zeros() }),
        _ => return None,
    })
}

pub fn words2(opcode: &str) -> Option<Words2> {
    Some(match opcode {
        "add.s32" | "add.u32" => lanes!(|a, b| a.wrapping_add(b)),
        "sub.s32" | "sub.u32" => lanes!(|a, b| a.wrapping_sub(b)),
        "mul.lo.s32" | "mul.lo.u32" => lanes!(|a, b| a.wrapping_mul(b)),
        "mul.hi.u32" => lanes!(|a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        "mul.hi.s32" => lanes!(|a, b| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32),
        "mul.hi.u16" => lanes!(|a, b| ((a & 0xffff) * (b & 0xffff)) >> 16),
        "mul.hi.s16" => lanes!(|a, b| ((i32::from(a as i16) * i32::from(b as i16)) >> 16) as u32 & 0xffff),
        "mul.wide.u16" => lanes!(|a, b| (a & 0xffff) * (b & 0xffff)),
        "mul.wide.s16" => lanes!(|a, b| (i32::from(a as i16) * i32::from(b as i16)) as u32),
        "div.u32" => lanes!(|a, b| a.checked_div(b).unwrap_or(u32::MAX)),
        "rem.u32" => lanes!(|a, b| a.checked_rem(b).unwrap_or(a)),
        "div.s32" => lanes!(|a, b| if b == 0 { u32::MAX } else { (a as i32).wrapping_div(b as i32) as u32 }),
        "rem.s32" => lanes!(|a, b| if b == 0 { a } else { (a as i32).wrapping_rem(b as i32) as u32 }),
        "min.u32" => lanes!(|a, b| a.min(b)),
        "max.u32" => lanes!(|a, b| a.max(b)),
        "min.s32" => lanes!(|a, b| (a as i32).min(b as i32) as u32),
        "max.s32" => lanes!(|a, b| (a as i32).max(b as i32) as u32),
        "and.b32" | "and.b16" => lanes!(|a, b| a & b),
        "or.b32" | "or.b16" => lanes!(|a, b| a | b),
        "xor.b32" | "xor.b16" => lanes!(|a, b| a ^ b),
        "shl.b32" => lanes!(|a, b| a.checked_shl(b).unwrap_or(0)),
        "shr.u32" | "shr.b32" => lanes!(|a, b| a.checked_shr(b).unwrap_or(0)),
        "shr.s32" => lanes!(|a, b| (a as i32 >> b.min(31)) as u32),
        "add.s16" | "add.u16" => lanes!(|a, b| a.wrapping_add(b) & 0xffff),
        "sub.s16" | "sub.u16" => lanes!(|a, b| a.wrapping_sub(b) & 0xffff),
        "mul.lo.s16" | "mul.lo.u16" => lanes!(|a, b| a.wrapping_mul(b) & 0xffff),
        "div.u16" => lanes!(|a, b| (a & 0xffff).checked_div(b & 0xffff).unwrap_or(0xffff)),
        "rem.u16" => lanes!(|a, b| (a & 0xffff).checked_rem(b & 0xffff).unwrap_or(a)),
        "div.s16" => lanes!(|a, b| if b == 0 { 0xffff } else { (a as i16).wrapping_div(b as i16) as u16 as u32 }),
        "rem.s16" => lanes!(|a, b| if b == 0 { a } else { (a as i16).wrapping_rem(b as i16) as u16 as u32 }),
        "min.u16" => lanes!(|a, b| a.min(b)),
        "max.u16" => lanes!(|a, b| a.max(b)),
        "min.s16" => lanes!(|a, b| (a as i16).min(b as i16) as u16 as u32),
        "max.s16" => lanes!(|a, b| (a as i16).max(b as i16) as u16 as u32),
        "shl.b16" => lanes!(|a, b| a.checked_shl(b).unwrap_or(0) & 0xffff),
        "shr.u16" | "shr.b16" => lanes!(|a, b| a.checked_shr(b).unwrap_or(0)),
        "shr.s16" => lanes!(|a, b| (a as i16 >> b.min(15)) as u16 as u32),
        _ => return None,
    })
}

pub fn words3(opcode: &str) -> Option<Words3> {
    Some(match opcode {
        "mad.lo.s32" | "mad.lo.u32" => lanes!(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        "mad.hi.u32" => lanes!(|a, b, c| (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c)),
        "mad.lo.s16" | "mad.lo.u16" => lanes!(|a, b, c| a.wrapping_mul(b).wrapping_add(c) & 0xffff),
        "mad.wide.u16" => lanes!(|a, b, c| ((a & 0xffff) * (b & 0xffff)).wrapping_add(c)),
        "bfe.u32" => lanes!(|a, b, c| extract(u64::from(a), b, c) as u32),
        "bfe.s32" => lanes!(|a, b, c| extract_signed(a as i32 as u64, b, c) as u32),
        "prmt.b32" => lanes!(|a, b, c| permute(a, b, c)),
        "shf.l.wrap.b32" => lanes!(|a, b, c| ((joined(a, b) << (c & 31)) >> 32) as u32),
        "shf.r.wrap.b32" => lanes!(|a, b, c| (joined(a, b) >> (c & 31)) as u32),
        "shf.l.clamp.b32" => lanes!(|a, b, c| ((joined(a, b) << c.min(32)) >> 32) as u32),
        "shf.r.clamp.b32" => lanes!(|a, b, c| (joined(a, b) >> c.min(32)) as u32),
        _ => return None,
    })
}

pub fn doubles1(opcode: &str) -> Option<Doubles1> {
    Some(match opcode {
        "not.b64" => lanes!(|a| !a),
        "neg.s64" => lanes!(|a| a.wrapping_neg()),
        "abs.s64" => lanes!(|a| (a as i64).wrapping_abs() as u64),
        "brev.b64" => lanes!(|a| a.reverse_bits()),
        _ => return None,
    })
}

pub fn doubles2(opcode: &str) -> Option<Doubles2> {
    Some(match opcode {
        "add.s64" | "add.u64" => lanes!(|a, b| a.wrapping_add(b)),
        "sub.s64" | "sub.u64" => lanes!(|a, b| a.wrapping_sub(b)),
        "mul.lo.s64" | "mul.lo.u64" => lanes!(|a, b| a.wrapping_mul(b)),
        "mul.hi.u64" => lanes!(|a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        "mul.hi.s64" => lanes!(|a, b| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64),
        "div.u64" => lanes!(|a, b| a.checked_div(b).unwrap_or(u64::MAX)),
        "rem.u64" => lanes!(|a, b| a.checked_rem(b).unwrap_or(a)),
        "div.s64" => lanes!(|a, b| if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 }),
        "rem.s64" => lanes!(|a, b| if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 }),
        "min.u64" => lanes!(|a, b| a.min(b)),
        "max.u64" => lanes!(|a, b| a.max(b)),
        "min.s64" => lanes!(|a, b| (a as i64).min(b as i64) as u64),
        "max.s64" => lanes!(|a, b| (a as i64).max(b as i64) as u64),
        "and.b64" => lanes!(|a, b| a & b),
        "or.b64" => lanes!(|a, b| a | b),
        "xor.b64" => lanes!(|a, b| a ^ b),
        _ => return None,
    })
}

pub fn doubles3(opcode: &str) -> Option<Doubles3> {
    Some(match opcode {
        "mad.lo.s64" | "mad.lo.u64" => lanes!(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        _ => return None,
    })
}

/// `bfe` of 64 bits.
pub fn fields(opcode: &str) -> Option<DoublesByWords2> {
    Some(match opcode {
        "bfe.u64" => lanes!(|a, b, c| extract(a, b, c)),
        "bfe.s64" => lanes!(|a, b, c| extract_signed(a, b, c)),
        _ => return None,
    })
}

pub fn shifts(opcode: &str) -> Option<DoublesByWords> {
    Some(match opcode {
        "shl.b64" => lanes!(|a, b| a.checked_shl(b).unwrap_or(0)),
        "shr.u64" | "shr.b64" => lanes!(|a, b| a.checked_shr(b).unwrap_or(0)),
        "shr.s64" => lanes!(|a, b| (a as i64 >> b.min(63)) as u64),
        _ => return None,
    })
}

/// `mul.wide` and the product of `mad.wide`.
pub fn wide_product(opcode: &str) -> Option<Widening2> {
    Some(match opcode {
        "mul.wide.u32" | "mad.wide.u32" => lanes!(|a, b| u64::from(a) * u64::from(b)),
        "mul.wide.s32" | "mad.wide.s32" => lanes!(|a, b| (i64::from(a as i32) * i64::from(b as i32)) as u64),
        _ => return None,
    })
}

pub fn narrowing1(opcode: &str) -> Option<Narrowing1> {
    Some(match opcode {
        "popc.b64" => lanes!(|a| a.count_ones()),
        "clz.b64" => lanes!(|a| a.leading_zeros()),
        _ => return None,
    })
}

/// `lop3.b32`: the bit of `table` that the three bits index.
pub fn lookup(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let term = |i: u32| if table >> i & 1 == 1 { u32::MAX } else { 0 };
    let pick = |bits: u32, index: u32, of: u32| if index & of != 0 { bits } else { !bits };
    (0..8).fold(0, |sum, i| sum | (term(i) & pick(a, i, 4) & pick(b, i, 2) & pick(c, i, 1)))
}

/// `bfi`: the low `length` bits of `a` laid over `b` from bit `position` on. Cut to 32 bits it is `bfi.b32`.
pub fn insert(a: u64, b: u64, position: u32, length: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    let mask = low_bits(length).checked_shl(position).unwrap_or(0);
    a.checked_shl(position).unwrap_or(0) & mask | b & !mask
}

/// `bfe.u64`: `length` bits from bit `position` on.
pub fn extract(a: u64, position: u32, length: u32) -> u64 {
    a.checked_shr(position & 0xff).unwrap_or(0) & low_bits(length & 0xff)
}

/// `bfe.s64`: the sign bit is the field's last, or the number's where the field reaches beyond it.
pub fn extract_signed(a: u64, position: u32, length: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if length == 0 {
        return 0;
    }
    let shifted = a as i64 >> position.min(63);
    let unused = 64 - length.min(64);
    ((shifted << unused) >> unused) as u64
}

fn low_bits(count: u32) -> u64 {
    1u64.checked_shl(count).map_or(u64::MAX, |end| end - 1)
}

fn joined(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// Each nibble of `selector` picks a byte of `b:a`, or, with its high bit, eight copies of that byte's sign.
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = joined(a, b).to_le_bytes();
    let pick = |i: usize| {
        let nibble = selector >> (4 * i) & 0xf;
        let byte = bytes[(nibble & 7) as usize];
        if nibble & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 }
    };
    u32::from_le_bytes(std::array::from_fn(pick))
}

//! Dropout's mask against Philox written out, and derived seeds.
use crate::harness::*;
use amc_kernels::dropout::{DeriveSeed, Dropout};
use amc_kernels::emit::Elem;

/// Philox4x32-10 (Salmon et al., 2011).
fn philox(mut c: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (a, b) = (0xD251_1F53_u64 * u64::from(c[0]), 0xCD9E_8D57_u64 * u64::from(c[2]));
        c = [(b >> 32) as u32 ^ c[1] ^ key[0], b as u32, (a >> 32) as u32 ^ c[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

/// The published answers for counters and keys of zeros and of ones.
#[test]
fn the_reference_gives_the_published_words() {
    assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
}

#[test]
fn keeps_what_the_words_say() {
    let cases = [
        (1, 0.5, 0, Elem::F32),
        (31, 0.1, u32::MAX, Elem::F32),
        (32, 0.0, 1, Elem::Bf16),
        (10_007, 0.3, 7, Elem::F32),
        (5000, 0.9, 123_456_789, Elem::Bf16),
        (5004, 0.2, 3, Elem::Bf16),
        (2052, 0.2, 3, Elem::F32),
    ];
    for (n, p, site, elem) in cases {
        let kernel = Dropout { n, p, site, elem }.build(&super::target());
        let library = load(&[&kernel]);
        for key in [[0, 0], [u32::MAX, u32::MAX], [0x1234_5678, 0x9ABC_DEF0]] {
            let (mut x, xs) = random_buffer(1, elem, n);
            let mut seed = Buffer::ints(&key.map(u32::cast_signed));
            let mut y = Buffer::garbage(elem, n);
            library.run_aliased(&kernel, &mut [&mut x, &mut seed, &mut y], &[(0, 2)]);
            let threshold = (f64::from(p) * 4_294_967_296.0) as u32;
            let kept = |i: usize| philox([(i / 4) as u32, site, 0, 0], key)[i % 4] >= threshold;
            let value = |(i, x): (usize, &f64)| if kept(i) { x / (1.0 - f64::from(p)) } else { 0.0 };
            let want: Vec<f64> = xs.iter().enumerate().map(value).collect();
            assert_close("dropout", &y, &want, rounding(elem), 0.0);
        }
    }
}

#[test]
fn seeds_are_derived() {
    for (index, low) in [(0_u32, 5_u32), (1, u32::MAX), (29, 0x8000_0000), (u32::MAX, 3)] {
        let kernel = DeriveSeed { index }.build(&super::target());
        let mut seed = Buffer::ints(&[low.cast_signed(), -7]);
        let mut out = Buffer::garbage(Elem::I32, 2);
        load(&[&kernel]).run(&kernel, &mut [&mut seed, &mut out]);
        let want = low.wrapping_add(index.wrapping_mul(0x9E37_79B9)).cast_signed();
        assert_eq!(out, Buffer::ints(&[want, -7]));
    }
}

//! Descriptions of tensors that `cuTensorMapEncodeTiled` refuses are refused here, each by its rule.
use amc_ptx::{Swizzle, TENSOR_MAP_BYTES, TensorElement, TensorMap};

fn map() -> TensorMap {
    TensorMap {
        element: TensorElement::Bf16,
        address: 0x1000,
        sizes: vec![100, 30, 1 << 32],
        strides: vec![208, 1 << 39],
        box_sizes: vec![64, 256, 1],
        element_strides: vec![1; 3],
        swizzle: Swizzle::Bytes128,
        fill_nan: true,
    }
}

#[test]
fn a_map_is_read_back_as_it_was_written() {
    let bytes = map().encode().unwrap();
    assert_eq!(bytes.len(), TENSOR_MAP_BYTES);
    assert_eq!(TensorMap::decode(&bytes), Some(map()));
    assert_eq!(TensorMap::decode(&[0; TENSOR_MAP_BYTES]), None);
    assert_eq!(map().box_bytes(), 64 * 256 * 2);
}

#[test]
fn broken_rules_are_named() {
    let cases: [(TensorMap, &str); 10] = [
        (TensorMap { address: 0x1008, ..map() }, "is not a multiple of 16"),
        (TensorMap { sizes: vec![100, 30], ..map() }, "a tensor map of rank 2"),
        (TensorMap { sizes: vec![100, 0, 4], ..map() }, "a tensor of 0 elements"),
        (TensorMap { strides: vec![200, 4096], ..map() }, "a stride of 200 bytes"),
        (TensorMap { strides: vec![208, 1 << 40], ..map() }, "below 2^40"),
        (TensorMap { box_sizes: vec![64, 257, 1], ..map() }, "a box of 257 elements"),
        (TensorMap { box_sizes: vec![4, 8, 1], swizzle: Swizzle::None, ..map() }, "a box row of 8 bytes"),
        (TensorMap { box_sizes: vec![128, 8, 1], ..map() }, "a box row of 256 bytes with swizzle Bytes128"),
        (TensorMap { element_strides: vec![1, 2, 1], ..map() }, "element strides [1, 2, 1]"),
        (TensorMap { element: TensorElement::U16, ..map() }, "cannot be filled with NaN"),
    ];
    for (map, wanted) in cases {
        let found = map.encode().expect_err(wanted);
        assert!(found.contains(wanted), "found {found:?}, wanted {wanted:?}");
    }
}

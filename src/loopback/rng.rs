//! The random numbers of a market: SplitMix64, fixed here for good so that a seed means the same market in
//! every release.

/// A stream of random numbers from a seed.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    /// The stream of `seed`; `stream` keeps streams of one seed apart.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Self(seed ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        rng.next();
        rng
    }

    /// The next 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `0..bound` that is small more often than not: how far from the top of a book.
    pub(super) fn near_zero(&mut self, bound: u64) -> u64 {
        let bits = self.next();
        let product = ((bits >> 32) * (bits & 0xFFFF_FFFF)) >> 32;
        (product * bound) >> 32
    }

    /// True with probability `p`.
    pub(super) fn chance(&mut self, p: f64) -> bool {
        // The top 53 bits are exact in an f64.
        ((self.next() >> 11) as f64) < p * (1_u64 << 53) as f64
    }
}

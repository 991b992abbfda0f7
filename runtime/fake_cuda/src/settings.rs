//! What the fake machine has.

/// The environment variable with the settings.
pub const SETTINGS: &str = "AMC_FAKE_CUDA";

/// The word that says which releases of cuBLASLt there are: `12`, `13`, `environment` (13, in a virtual environment for Python) or
/// `none`; without it both, where the loader finds them.
pub const CUBLASLT: &str = "cublaslt";
/// The word that says where NCCL is: `environment` (a virtual environment for Python) or `none`; without it, where the loader finds it.
pub const NCCL: &str = "nccl";
/// The word with the name of a function that neither driver nor cuBLASLt has.
pub const LACKS: &str = "lacks";

/// A machine's GPUs, all alike.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub devices: i32,
    /// Major and minor number of the compute capability.
    pub capability: (i32, i32),
    /// Bytes of a GPU's memory.
    pub memory: u64,
    /// The version of CUDA that the driver is for: 1000 times its major and 10 times its minor number.
    pub driver: i32,
    /// How many algorithms cuBLASLt finds for a product.
    pub algorithms: u32,
    /// Whether it computes with them: 1, or 0.
    pub multiplies: u32,
}

impl Settings {
    /// # Panics
    /// If the variable holds anything else than settings.
    pub fn from_environment() -> Settings {
        let mut settings =
            Settings { devices: 1, capability: (9, 0), memory: 1 << 30, driver: 12_040, algorithms: 1, multiplies: 1 };
        for word in std::env::var(SETTINGS).unwrap_or_default().split_whitespace() {
            settings.set(word).unwrap_or_else(|| panic!("{SETTINGS}: `{word}` is no setting"));
        }
        settings
    }

    fn set(&mut self, word: &str) -> Option<()> {
        let (name, value) = word.split_once('=')?;
        match name {
            "devices" => self.devices = value.parse().ok()?,
            "capability" => {
                let (major, minor) = value.split_once('.')?;
                self.capability = (major.parse().ok()?, minor.parse().ok()?);
            }
            "memory" => self.memory = value.parse().ok()?,
            "driver" => self.driver = value.parse().ok()?,
            "algorithms" => self.algorithms = value.parse().ok()?,
            "multiplies" => self.multiplies = value.parse().ok()?,
            // They say what files there are (`machines.rs`).
            CUBLASLT | NCCL | LACKS => {}
            _ => return None,
        }
        Some(())
    }
}

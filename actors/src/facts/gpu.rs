//! The GPUs, by NVML. The library is loaded when first asked for; its absence is a fact.

use nvml_wrapper::Device;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// What can be said about GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuFacts {
    /// Nothing, and why.
    Unavailable(String),
    /// The driver answers; the list may be empty.
    Present(Vec<Gpu>),
}

/// One GPU. What the driver would not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// The driver's number, which may change between boots.
    pub index: u32,
    /// Its identity.
    pub uuid: Option<String>,
    /// PCI address.
    pub pci: Option<String>,
    /// Product name.
    pub name: Option<String>,
    /// Bytes.
    pub memory_total: Option<u64>,
    /// Bytes in use by anybody.
    pub memory_used: Option<u64>,
    /// Percent of the last sample period in which it worked.
    pub busy_percent: Option<u32>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// Processes that use it, by pid of this machine.
    pub clients: Vec<GpuClient>,
    /// Why it can't be used, if it can't (lost, no permission).
    pub fault: Option<String>,
}

/// A process on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GpuClient {
    /// Its pid.
    pub pid: i32,
    /// Bytes of the GPU's memory, where the driver says.
    pub memory: Option<u64>,
}

/// Asks the driver. A failed load is tried again at the next question: a driver may appear, and failing costs 0.3 ms.
pub struct GpuReader {
    library: Option<PathBuf>,
    nvml: Mutex<Option<Nvml>>,
}

impl GpuReader {
    /// `library` replaces the system's `libnvidia-ml.so.1`. It is code: take it from the runtime's configuration only.
    #[must_use]
    pub fn new(library: Option<PathBuf>) -> Self {
        GpuReader {
            library,
            nvml: Mutex::new(None),
        }
    }

    /// What there is now. A real driver may think about this for a long time.
    #[must_use]
    pub fn gpus(&self) -> GpuFacts {
        let mut slot = self.nvml.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match slot.take().map_or_else(|| self.load(), Ok) {
            Ok(nvml) => read(&nvml).map(|gpus| (gpus, nvml)),
            Err(error) => Err(error),
        };
        match answer {
            Ok((gpus, nvml)) => {
                *slot = Some(nvml);
                GpuFacts::Present(gpus)
            }
            // The library is dropped here: after an upgrade of the driver only a new load can work.
            Err(NvmlError::LibloadingError(why)) => {
                GpuFacts::Unavailable(format!("the driver's library can't be loaded: {why}"))
            }
            Err(error) => GpuFacts::Unavailable(error.to_string()),
        }
    }

    fn load(&self) -> Result<Nvml, NvmlError> {
        let mut builder = Nvml::builder();
        if let Some(path) = &self.library {
            builder.lib_path(path.as_os_str());
        }
        builder.init()
    }
}

fn read(nvml: &Nvml) -> Result<Vec<Gpu>, NvmlError> {
    let count = nvml.device_count()?;
    Ok((0..count)
        .map(|index| match nvml.device_by_index(index) {
            Ok(device) => one(index, &device),
            Err(error) => Gpu {
                index,
                fault: Some(error.to_string()),
                ..Gpu::default()
            },
        })
        .collect())
}

fn one(index: u32, device: &Device<'_>) -> Gpu {
    let memory = device.memory_info();
    Gpu {
        index,
        uuid: device.uuid().ok(),
        pci: device.pci_info().ok().map(|pci| pci.bus_id),
        name: device.name().ok(),
        memory_total: memory.as_ref().ok().map(|m| m.total),
        memory_used: memory.as_ref().ok().map(|m| m.used),
        busy_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
        temperature: device.temperature(TemperatureSensor::Gpu).ok(),
        clients: clients(device),
        fault: memory.err().map(|error| error.to_string()),
    }
}

fn clients(device: &Device<'_>) -> Vec<GpuClient> {
    let compute = device.running_compute_processes().unwrap_or_default();
    let graphics = device.running_graphics_processes().unwrap_or_default();
    let mut found = BTreeMap::new();
    for process in compute.iter().chain(&graphics) {
        let Ok(pid) = i32::try_from(process.pid) else {
            continue;
        };
        let memory = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        found.entry(pid).or_insert(memory);
    }
    found
        .into_iter()
        .map(|(pid, memory)| GpuClient { pid, memory })
        .collect()
}

#[cfg(test)]
mod test {
    use super::{GpuFacts, GpuReader};
    use std::path::PathBuf;

    #[test]
    fn a_missing_library_is_a_fact_with_a_reason_and_may_be_asked_again() {
        let reader = GpuReader::new(Some(PathBuf::from("/nonexistent/libnvidia-ml.so.1")));
        for _ in 0..2 {
            assert!(
                matches!(reader.gpus(), GpuFacts::Unavailable(why) if why.contains("/nonexistent"))
            );
        }
    }
}

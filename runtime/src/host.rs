//! What the operating system knows: memory, names, time.
use std::time::{SystemTime, UNIX_EPOCH};

/// Peak resident memory of this process in bytes; 0 where the system does not say.
pub fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix("kB")).and_then(|count| count.trim().parse().ok());
    kilobytes.unwrap_or(0u64) * 1024
}

/// Processor seconds that everything but this process has used since the machine started, what a hypervisor took away
/// included; `None` where the system does not say.
pub fn others_seconds() -> Option<f64> {
    /// Linux counts in hundredths of a second, whatever the kernel's own clock.
    const TICK: f64 = 0.01;
    let all = std::fs::read_to_string("/proc/stat").ok()?;
    let own = std::fs::read_to_string("/proc/self/stat").ok()?;
    // user, nice, system, idle, iowait, irq, softirq, steal
    let fields = all.lines().next()?.split_whitespace().skip(1).take(8);
    let busy: f64 =
        fields.enumerate().filter(|(i, _)| ![3, 4].contains(i)).filter_map(|(_, f)| f.parse::<f64>().ok()).sum();
    // utime and stime, counted from behind the name, which may hold anything.
    let own: f64 =
        own.rsplit_once(')')?.1.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum();
    Some((busy - own) * TICK)
}

/// The name of this machine.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_string()
}

/// A moment in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    year: i64,
    month: u64,
    day: u64,
    second_of_day: u64,
    millisecond: u64,
}

impl Moment {
    pub fn now() -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment::at(since.as_secs(), since.subsec_millis().into())
    }

    /// So many seconds after 1970 began. The calendar is Howard Hinnant's `civil_from_days`.
    fn at(seconds: u64, millisecond: u64) -> Moment {
        let days = seconds / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = (year_of_era + era * 400 + u64::from(month <= 2)) as i64;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        Moment { year, month, day, second_of_day: seconds % 86_400, millisecond }
    }

    fn clock(&self) -> String {
        let s = self.second_of_day;
        format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    }

    /// `2026-08-22 13:05:09`
    pub fn log_stamp(&self) -> String {
        format!("{:04}-{:02}-{:02} {}", self.year, self.month, self.day, self.clock())
    }

    /// `2026-08-22`
    pub fn day(&self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// `2026-08-22T13:05:09.123Z`
    pub fn iso(&self) -> String {
        format!("{:04}-{:02}-{:02}T{}.{:03}Z", self.year, self.month, self.day, self.clock(), self.millisecond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar() {
        assert_eq!(Moment::at(0, 0).iso(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Moment::at(951_782_400, 7).iso(), "2000-02-29T00:00:00.007Z");
        assert_eq!(Moment::at(1_767_225_599, 999).log_stamp(), "2025-12-31 23:59:59");
        assert_eq!(Moment::at(4_107_542_400, 0).log_stamp(), "2100-03-01 00:00:00");
    }

    #[test]
    fn others_work_only_grows() {
        let before = others_seconds().unwrap();
        // What a process has used is known some ticks earlier or later than what all have.
        assert!(before > 0.0 && others_seconds().unwrap() > before - 0.1);
    }

    #[test]
    fn memory_is_known() {
        assert!(peak_memory() > 1 << 16);
    }
}

//! Series like those of a fleet of hosts that node_exporter and one instrumented service describe: the same
//! kinds in the same proportions, always the same values.

use std::f64::consts::TAU;

/// A generator of numbers that need not be good, only the same every time.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normally distributed, about.
    pub fn noise(&mut self) -> f64 {
        (0..6).map(|_| self.unit()).sum::<f64>() * 1.414 - 4.242
    }

    /// How many events of a mean rate happen.
    pub fn events(&mut self, mean: f64) -> f64 {
        if mean > 30.0 {
            return (mean + mean.sqrt() * self.noise()).round().max(0.0);
        }
        let (mut n, mut left) = (0.0, (-mean).exp());
        let mut draw = self.unit();
        while draw > left && n < 200.0 {
            draw -= left;
            n += 1.0;
            left *= mean / n;
        }
        n
    }
}

/// One series: metric, the other labels, the host whose timestamps it has, and its values.
pub struct Series {
    pub metric: String,
    pub labels: String,
    pub target: usize,
    pub values: Vec<f64>,
}

pub struct Fleet {
    /// Timestamps (ns) per host.
    pub times: Vec<Vec<i64>>,
    /// Ordered by metric, host and labels; buckets of a histogram by their bounds.
    pub series: Vec<Series>,
}

/// How a host does: what its load is like at each scrape.
struct Host {
    load: Vec<f64>,
    number: usize,
}

fn round(value: f64, digits: i32) -> f64 {
    let power = 10f64.powi(digits);
    (value * power).round() / power
}

/// `series` series of `samples` samples each, one every `step` seconds from `start_ms` (Unix) on.
pub fn fleet(series: usize, samples: usize, step: i64, start_ms: i64, seed: u64) -> Fleet {
    let mut random = Random(seed);
    let mut fleet = Fleet { times: Vec::new(), series: Vec::new() };
    while fleet.series.len() < series {
        let number = fleet.times.len();
        let phase = (random.unit() * step as f64 * 1000.0) as i64;
        let jitter =
            |random: &mut Random| if random.unit() < 0.25 { (random.unit() * 5.0) as i64 - 2 } else { 0 };
        let time = |i: i64| (start_ms + phase + i * step * 1000 + jitter(&mut random)) * 1_000_000;
        fleet.times.push((0..samples as i64).map(time).collect());
        let mut host = Host { load: Vec::new(), number };
        let (mut level, base) = (0.0, 0.1 + 0.5 * random.unit());
        for i in 0..samples {
            level = level * 0.95 + 0.1 * random.noise();
            let day = (i as f64 * step as f64 / 86_400.0 * TAU + phase as f64).sin();
            let burst = if random.unit() < 0.01 { 0.6 } else { 0.0 };
            host.load.push((base * (1.0 + 0.3 * day + 0.3 * level) + burst).clamp(0.01, 0.99));
        }
        one_host(&host, step as f64, &mut random, &mut fleet.series);
    }
    fleet.series.truncate(series);
    let order = |a: &Series, b: &Series| (&a.metric, a.target).cmp(&(&b.metric, b.target));
    fleet.series.sort_by(order);
    fleet
}

fn one_host(host: &Host, step: f64, random: &mut Random, out: &mut Vec<Series>) {
    let n = host.load.len();
    let mut add = |metric: &str, labels: String, values: Vec<f64>| {
        out.push(Series { metric: metric.to_owned(), labels, target: host.number, values });
    };
    let constant = |value: f64| vec![value; n];
    // A counter that grows by `rate` per second at full load.
    let counter = |rate: f64, digits: i32, random: &mut Random| -> Vec<f64> {
        let mut total = (rate * 1e6 * random.unit()).round();
        let grow = |load: &f64| {
            let mean = rate * load * step;
            total += if digits == 0 {
                random.events(mean)
            } else {
                (mean * (1.0 + 0.2 * random.noise())).max(0.0)
            };
            round(total, digits)
        };
        host.load.iter().map(grow).collect()
    };
    // A gauge that wanders around `middle` in steps of `unit`.
    let gauge = |middle: f64, swing: f64, unit: f64, digits: i32, random: &mut Random| -> Vec<f64> {
        let mut level = 0.0;
        let wander = |load: &f64| {
            level = level * 0.98 + 0.15 * random.noise();
            round(((middle + swing * (load + level)) / unit).round().max(0.0) * unit, digits)
        };
        host.load.iter().map(wander).collect()
    };
    for cpu in 0..8 {
        for (mode, share) in
            [("idle", 0.7), ("user", 0.25), ("system", 0.06), ("iowait", 0.01), ("softirq", 0.004)]
        {
            add(
                "node_cpu_seconds_total",
                format!("cpu=\"{cpu}\",mode=\"{mode}\""),
                counter(share, 2, random),
            );
        }
        for mode in ["irq", "nice", "steal"] {
            let value = round(random.unit() * 50.0, 2);
            add("node_cpu_seconds_total", format!("cpu=\"{cpu}\",mode=\"{mode}\""), constant(value));
        }
        for mode in ["nice", "user"] {
            add("node_cpu_guest_seconds_total", format!("cpu=\"{cpu}\",mode=\"{mode}\""), constant(0.0));
        }
        let cpu = format!("cpu=\"{cpu}\"");
        add("node_schedstat_running_seconds_total", cpu.clone(), counter(0.5, 9, random));
        add("node_schedstat_waiting_seconds_total", cpu.clone(), counter(0.05, 9, random));
        add("node_schedstat_timeslices_total", cpu.clone(), counter(900.0, 0, random));
        add("node_softnet_processed_total", cpu.clone(), counter(300.0, 0, random));
        add("node_softnet_dropped_total", cpu.clone(), constant(0.0));
        add("node_softnet_times_squeezed_total", cpu, counter(0.01, 0, random));
    }
    let memory = [
        ("Active", 1),
        ("AnonPages", 1),
        ("Cached", 1),
        ("Dirty", 1),
        ("MemAvailable", 1),
        ("MemFree", 1),
        ("Inactive", 1),
        ("KernelStack", 1),
        ("PageTables", 1),
        ("SReclaimable", 1),
        ("SUnreclaim", 1),
        ("Slab", 1),
        ("Buffers", 1),
        ("Active_anon", 1),
        ("Active_file", 1),
        ("Inactive_anon", 1),
        ("Inactive_file", 1),
        ("Mapped", 1),
        ("Shmem", 1),
        ("Committed_AS", 1),
        ("Writeback", 0),
        ("MemTotal", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("SwapCached", 0),
        ("HugePages_Total", 0),
        ("HugePages_Free", 0),
        ("HugePages_Rsvd", 0),
        ("HugePages_Surp", 0),
        ("Hugepagesize", 0),
        ("HardwareCorrupted", 0),
        ("VmallocTotal", 0),
        ("VmallocChunk", 0),
        ("CommitLimit", 0),
        ("Mlocked", 0),
        ("Unevictable", 0),
        ("Bounce", 0),
        ("NFS_Unstable", 0),
        ("WritebackTmp", 0),
        ("CmaTotal", 0),
        ("CmaFree", 0),
    ];
    for (name, moves) in memory {
        let size = (random.unit() * 3e10 / 4096.0).round() * 4096.0;
        let values = match moves {
            1 => gauge(size, 3e8, 4096.0, 0, random),
            _ => constant(if random.unit() < 0.5 { 0.0 } else { size }),
        };
        add(&format!("node_memory_{name}_bytes"), String::new(), values);
    }
    for (name, rate) in [
        ("pgfault", 20_000.0),
        ("pgpgin", 40.0),
        ("pgpgout", 3000.0),
        ("pgmajfault", 0.1),
        ("pswpin", 0.0),
        ("pswpout", 0.0),
        ("oom_kill", 0.0),
    ] {
        add(&format!("node_vmstat_{name}"), String::new(), counter(rate, 0, random));
    }
    for name in [
        "Icmp_InErrors",
        "Icmp_InMsgs",
        "Icmp_OutMsgs",
        "Ip_Forwarding",
        "Tcp_ActiveOpens",
        "Tcp_PassiveOpens",
        "Tcp_CurrEstab",
        "Tcp_InErrs",
        "Tcp_InSegs",
        "Tcp_OutSegs",
        "Tcp_RetransSegs",
        "Udp_InDatagrams",
        "Udp_OutDatagrams",
        "Udp_NoPorts",
        "Udp6_InErrors",
        "TcpExt_ListenDrops",
        "TcpExt_ListenOverflows",
        "TcpExt_SyncookiesSent",
        "TcpExt_TCPTimeouts",
        "IpExt_InOctets",
        "IpExt_OutOctets",
    ] {
        let values = match name {
            "Tcp_CurrEstab" => gauge(200.0, 60.0, 1.0, 0, random),
            "Tcp_InSegs" | "Tcp_OutSegs" => counter(4000.0, 0, random),
            "IpExt_InOctets" | "IpExt_OutOctets" => counter(3e6, 0, random),
            "Tcp_ActiveOpens" | "Tcp_PassiveOpens" | "Udp_InDatagrams" | "Udp_OutDatagrams" => {
                counter(8.0, 0, random)
            }
            "Tcp_RetransSegs" | "TcpExt_TCPTimeouts" | "Udp_NoPorts" => counter(0.05, 0, random),
            _ => constant(random.events(0.5)),
        };
        add(&format!("node_netstat_{name}"), String::new(), values);
    }
    for (device, rate) in [("eth0", 1.0), ("lo", 0.3), ("docker0", 0.0)] {
        let device = format!("device=\"{device}\"");
        for direction in ["receive", "transmit"] {
            let bytes = counter(2e6 * rate, 0, random);
            add(&format!("node_network_{direction}_bytes_total"), device.clone(), bytes);
            add(
                &format!("node_network_{direction}_packets_total"),
                device.clone(),
                counter(2500.0 * rate, 0, random),
            );
            for kind in ["errs", "drop", "fifo", "compressed"] {
                add(&format!("node_network_{direction}_{kind}_total"), device.clone(), constant(0.0));
            }
        }
        for (name, value) in
            [("up", 1.0), ("mtu_bytes", 1500.0), ("speed_bytes", 1.25e9), ("carrier", 1.0), ("flags", 4099.0)]
        {
            add(&format!("node_network_{name}"), device.clone(), constant(value));
        }
    }
    for (device, rate) in [("nvme0n1", 1.0), ("nvme1n1", 0.2)] {
        let device = format!("device=\"{device}\"");
        for direction in ["reads", "writes"] {
            add(
                &format!("node_disk_{direction}_completed_total"),
                device.clone(),
                counter(120.0 * rate, 0, random),
            );
            add(
                &format!("node_disk_{direction}_merged_total"),
                device.clone(),
                counter(15.0 * rate, 0, random),
            );
        }
        for name in ["read_bytes_total", "written_bytes_total"] {
            let sectors = counter(6000.0 * rate, 0, random);
            add(
                &format!("node_disk_{name}"),
                device.clone(),
                sectors.iter().map(|sectors| sectors * 512.0).collect(),
            );
        }
        for name in [
            "io_time_seconds_total",
            "read_time_seconds_total",
            "write_time_seconds_total",
            "io_time_weighted_seconds_total",
        ] {
            add(&format!("node_disk_{name}"), device.clone(), counter(0.1 * rate, 3, random));
        }
        for name in ["discards_completed_total", "discarded_sectors_total", "flush_requests_total", "io_now"]
        {
            add(&format!("node_disk_{name}"), device.clone(), constant(0.0));
        }
    }
    for mount in ["/", "/boot", "/data", "/run"] {
        let label = format!("mountpoint=\"{mount}\"");
        for (name, moves) in [
            ("avail_bytes", true),
            ("free_bytes", true),
            ("files_free", true),
            ("size_bytes", false),
            ("files", false),
            ("readonly", false),
            ("device_error", false),
        ] {
            let size = (random.unit() * 1e8).round();
            let unit = if name.ends_with("bytes") { 4096.0 } else { 1.0 };
            let mut left = size;
            let values = if moves && mount != "/boot" {
                host.load
                    .iter()
                    .map(|load| {
                        if random.unit() < 0.6 {
                            left -= (random.noise() * 30.0 * load).round();
                        }
                        left * unit
                    })
                    .collect()
            } else {
                constant(if name.starts_with("re") || name.starts_with("de") { 0.0 } else { size * unit })
            };
            add(&format!("node_filesystem_{name}"), label.clone(), values);
        }
    }
    for (name, width) in [("node_load1", 0.2), ("node_load5", 0.05), ("node_load15", 0.01)] {
        let mut level = 1.0;
        let values = host
            .load
            .iter()
            .map(|load| {
                level += (load * 8.0 - level) * width;
                round(level, 2)
            })
            .collect();
        add(name, String::new(), values);
    }
    add("node_context_switches_total", String::new(), counter(20_000.0, 0, random));
    add("node_intr_total", String::new(), counter(12_000.0, 0, random));
    add("node_forks_total", String::new(), counter(9.0, 0, random));
    add("node_procs_running", String::new(), gauge(2.0, 3.0, 1.0, 0, random));
    add("node_procs_blocked", String::new(), gauge(0.0, 0.4, 1.0, 0, random));
    add("node_entropy_available_bits", String::new(), constant(256.0));
    add("node_boot_time_seconds", String::new(), constant(1_759_000_000.0));
    let clock = |i: usize| 1_760_000_000.0 + i as f64 * step;
    add(
        "node_time_seconds",
        String::new(),
        (0..n).map(|i| clock(i) + (random.unit() * 1e7).round() / 1e7).collect(),
    );
    for name in
        ["node_timex_offset_seconds", "node_timex_frequency_adjustment_ratio", "node_timex_maxerror_seconds"]
    {
        let values = host.load.iter().map(|_| round(random.noise() * 1e-5, 9)).collect();
        add(name, String::new(), values);
    }
    for name in [
        "sync_status",
        "loop_time_constant",
        "pps_error_total",
        "status",
        "tai_offset_seconds",
        "tick_seconds",
    ] {
        add(&format!("node_timex_{name}"), String::new(), constant(random.events(2.0)));
    }
    for sensor in 0..6 {
        let values = gauge(40.0, 15.0, 1.0, 0, random);
        add("node_hwmon_temp_celsius", format!("sensor=\"temp{sensor}\""), values);
        add("node_hwmon_temp_crit_celsius", format!("sensor=\"temp{sensor}\""), constant(100.0));
    }
    for kind in ["cpu_waiting", "io_stalled", "io_waiting", "memory_stalled", "memory_waiting"] {
        add(&format!("node_pressure_{kind}_seconds_total"), String::new(), counter(0.02, 6, random));
    }
    for collector in 0..30 {
        let label = format!("collector=\"c{collector}\"");
        let usual = 10f64.powf(-5.0 + 3.0 * random.unit());
        let values = host.load.iter().map(|_| round(usual * (0.5 * random.noise()).exp(), 9)).collect();
        add("node_scrape_collector_duration_seconds", label.clone(), values);
        add("node_scrape_collector_success", label, constant(1.0));
    }
    for quantile in ["0", "0.25", "0.5", "0.75", "1"] {
        let mut current = 5e-5;
        let values = host
            .load
            .iter()
            .map(|_| {
                if random.unit() < 0.12 {
                    current = round(5e-5 * (0.6 * random.noise()).exp(), 9);
                }
                current
            })
            .collect();
        add("go_gc_duration_seconds", format!("quantile=\"{quantile}\""), values);
    }
    for (name, rate) in [("alloc_bytes_total", 2e5), ("mallocs_total", 3000.0), ("frees_total", 3000.0)] {
        add(&format!("go_memstats_{name}"), String::new(), counter(rate, 0, random));
    }
    for name in [
        "alloc_bytes",
        "heap_alloc_bytes",
        "heap_inuse_bytes",
        "heap_idle_bytes",
        "heap_objects",
        "stack_inuse_bytes",
        "next_gc_bytes",
    ] {
        add(
            &format!("go_memstats_{name}"),
            String::new(),
            gauge(4e6, 2e6, if name.contains("in") { 8192.0 } else { 8.0 }, 0, random),
        );
    }
    for name in [
        "buck_hash_sys_bytes",
        "gc_sys_bytes",
        "heap_sys_bytes",
        "mcache_inuse_bytes",
        "mspan_sys_bytes",
        "other_sys_bytes",
        "sys_bytes",
    ] {
        add(&format!("go_memstats_{name}"), String::new(), constant((random.unit() * 1e6).round() * 8.0));
    }
    add("go_goroutines", String::new(), gauge(8.0, 3.0, 1.0, 0, random));
    add("process_cpu_seconds_total", String::new(), counter(0.05, 2, random));
    add("process_resident_memory_bytes", String::new(), gauge(3e7, 2e6, 4096.0, 0, random));
    add("process_open_fds", String::new(), gauge(10.0, 2.0, 1.0, 0, random));
    for name in ["process_max_fds", "process_start_time_seconds", "process_virtual_memory_max_bytes"] {
        add(name, String::new(), constant((random.unit() * 1e9).round()));
    }
    for ratio in 0..6 {
        // Quotients: all 53 bits of them.
        let values =
            host.load.iter().map(|load| (load * 1e4 + random.noise() * 300.0).round() / 7919.0).collect();
        add("container_cpu_usage_ratio", format!("container=\"app-{ratio}\""), values);
        add(
            "container_memory_percent",
            format!("container=\"app-{ratio}\""),
            gauge(60.0, 10.0, 0.1, 1, random),
        );
    }
    let bounds = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];
    for handler in 0..8 {
        let label = format!("handler=\"/api/{handler}\"");
        let rate = 10f64.powf(-1.0 + 2.5 * random.unit());
        let slow = random.unit() * 4.0;
        let mut totals = [0.0; 12];
        totals.iter_mut().for_each(|total| *total = (random.unit() * 1e4).round());
        (1..12).for_each(|i| totals[i] += totals[i - 1]);
        let mut buckets: Vec<Vec<f64>> = vec![Vec::new(); 12];
        let (mut sum, mut sums) = (random.unit() * 1e3, Vec::new());
        for load in &host.load {
            let requests = random.events(rate * load * step);
            for _ in 0..requests as usize {
                let place = (slow + 1.2 * random.noise()).round().clamp(0.0, 11.0) as usize;
                (place..12).for_each(|bucket| totals[bucket] += 1.0);
                sum += round(0.005 * 2f64.powf(place as f64 - random.unit()), 9);
            }
            buckets.iter_mut().zip(totals).for_each(|(bucket, total)| bucket.push(total));
            sums.push(sum);
        }
        add("http_request_duration_seconds_count", label.clone(), buckets[11].clone());
        add("http_request_duration_seconds_sum", label.clone(), sums);
        for (bound, bucket) in bounds.iter().zip(buckets) {
            add("http_request_duration_seconds_bucket", format!("{label},le=\"{bound}\""), bucket);
        }
    }
}

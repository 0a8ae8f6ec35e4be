//! An object store in memory that hangs on the power of a simulated disk.
//!
//! As S3 does, a put or a delete happens as a whole or not at all, and is durable when it returns. When
//! the power goes in the middle of one it may have happened, without anybody being told.

use std::{
    fmt, io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, executor::block_on, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory,
    path::Path,
};

use crate::{
    SimDisk,
    disk::{Atomic, power_is_off},
};

/// The object store; clones are the same one.
#[derive(Debug, Clone)]
pub struct SimObjects {
    disk: SimDisk,
    kept: Arc<InMemory>,
    full: Arc<AtomicBool>,
}

fn failed(source: io::Error) -> Error {
    Error::Generic { store: "simulation", source: source.into() }
}

impl SimObjects {
    /// An empty one on the power, and with the random source, of a disk.
    pub fn new(disk: &SimDisk) -> Self {
        Self { disk: disk.clone(), kept: Arc::new(InMemory::new()), full: Arc::default() }
    }

    /// Whether puts fail for lack of space.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Relaxed);
    }

    /// Names of all objects, sorted.
    pub fn names(&self) -> Vec<String> {
        let objects: Vec<ObjectMeta> =
            block_on(self.kept.list(None).try_collect()).expect("memory can be listed");
        let mut names: Vec<String> = objects.into_iter().map(|object| object.location.into()).collect();
        names.sort_unstable();
        names
    }

    /// The content of an object.
    pub fn content(&self, name: &str) -> Vec<u8> {
        let read = async { self.kept.get(&Path::from(name)).await?.bytes().await };
        block_on(read).expect("the object exists").to_vec()
    }

    /// Replaces an object behind everybody's back.
    pub fn overwrite(&self, name: &str, content: Vec<u8>) {
        block_on(self.kept.put(&Path::from(name), content.into())).expect("memory takes it");
    }

    fn need_power(&self) -> Result<()> {
        if self.disk.has_power() { Ok(()) } else { Err(failed(power_is_off())) }
    }

    /// Does a change as a whole or not at all.
    async fn change<T>(&self, change: impl Future<Output = Result<T>>) -> Result<T> {
        let fate = self.disk.atomic_operation().map_err(failed)?;
        if fate == Atomic::Lost {
            return Err(failed(power_is_off()));
        }
        let done = change.await?;
        if fate == Atomic::DoneInTheDark { Err(failed(power_is_off())) } else { Ok(done) }
    }
}

impl fmt::Display for SimObjects {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("simulated objects")
    }
}

#[async_trait]
impl ObjectStore for SimObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.full.load(Relaxed) {
            return Err(failed(io::ErrorKind::StorageFull.into()));
        }
        self.change(self.kept.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "multipart uploads".into(), implementer: self.to_string() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.need_power()?;
        self.kept.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.need_power()?;
        self.kept.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = move |location: Result<Path>| {
            let this = this.clone();
            async move {
                let location = location?;
                this.change(this.kept.delete(&location)).await?;
                Ok(location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.need_power() {
            Ok(()) => self.kept.list(prefix),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.need_power()?;
        self.kept.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.change(self.kept.copy_opts(from, to, options)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_that_the_power_cut_hits_is_there_as_a_whole_or_not_at_all() {
        let (mut there, mut gone) = (0, 0);
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            let objects = SimObjects::new(&disk);
            let put = |name: &str| block_on(objects.put(&Path::from(name), vec![7; 1000].into()));
            put("day/first").unwrap();
            disk.cut_power_after(0);
            assert!(put("day/second").is_err());
            assert!(block_on(objects.get(&Path::from("day/first"))).is_err(), "nothing works in the dark");
            disk.crash();
            assert_eq!(objects.content("day/first"), [7; 1000]);
            match &objects.names()[1..] {
                [name] => {
                    assert_eq!(objects.content(name), [7; 1000]);
                    there += 1;
                }
                none => {
                    assert!(none.is_empty());
                    gone += 1;
                }
            }
        }
        assert!(there > 10 && gone > 10, "{there} {gone}");
    }

    #[test]
    fn a_full_store_says_so_until_it_is_not() {
        let objects = SimObjects::new(&SimDisk::new(1));
        objects.set_full(true);
        assert!(block_on(objects.put(&Path::from("a"), vec![1].into())).is_err());
        objects.set_full(false);
        block_on(objects.put(&Path::from("a"), vec![1].into())).unwrap();
        block_on(objects.delete(&Path::from("a"))).unwrap();
        assert!(objects.names().is_empty());
    }
}

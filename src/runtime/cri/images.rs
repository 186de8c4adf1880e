//! Images.

use std::convert::Infallible;
use std::time::Duration;

use tonic::Code;

use super::{CALL, Cri, proto, record, rpc};
use crate::runtime::*;

const SERVICE: &str = "ImageService";
/// How often containerd is asked how far it is.
const PROGRESS: Duration = Duration::from_millis(250);

impl Cri {
    pub(super) async fn image_status(&self, reference: &str) -> Result<Option<ImageRecord>> {
        let question = proto::ByImage::of(reference);
        let answer = self.call_within::<_, proto::ImageStatusResponse>(SERVICE, "ImageStatus", question, Some(CALL));
        match answer.await {
            Ok(answer) => Ok(answer.image.map(record::image)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.error("look for an image", &format!("image {reference}"), status)),
        }
    }

    /// Every image that has a name, the largest first.
    pub(super) async fn list_images(&self) -> Result<Vec<StoredImage>> {
        let listed = self.call_within(SERVICE, "ListImages", proto::Empty {}, Some(CALL)).await;
        let listed: proto::ListImagesResponse =
            listed.map_err(|status| self.error("list images", "the runtime", status))?;
        let mut images: Vec<StoredImage> = listed.images.into_iter().filter_map(record::stored_image).collect();
        images.sort_by_key(|image| std::cmp::Reverse(image.size));
        Ok(images)
    }

    /// The first place that the runtime names, as a kubelet takes it.
    pub(super) async fn get_image_file_system(&self) -> Result<Option<ImageFileSystem>> {
        let answer = self.call_within(SERVICE, "ImageFsInfo", proto::Empty {}, Some(CALL)).await;
        let answer: proto::ImageFsInfoResponse =
            answer.map_err(|status| self.error("ask where images are", "the runtime", status))?;
        Ok(answer.image_filesystems.into_iter().find_map(image_file_system))
    }

    /// The API says nothing of how far a pull is; containerd's own service does, of all pulls together.
    pub(super) async fn pull_image(
        &self,
        reference: &str,
        credential: Option<&Credential>,
        progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
    ) -> Result<ImageRecord> {
        let question = proto::PullImageRequest::of(reference, credential);
        let pull = self.call_within::<_, proto::ById>(SERVICE, "PullImage", question, None);
        let watch = self.watch_pull(progress);
        let pulled = tokio::select! {
            pulled = pull => pulled,
            never = watch => match never {},
        };
        let pulled = pulled.map_err(|status| match self.error("pull an image", reference, status.clone()) {
            away @ RuntimeError::Unreachable { .. } => away,
            _ => RuntimeError::Pull { image: reference.to_owned(), message: rpc::words(&status).to_owned() },
        })?;
        match self.image_status(reference).await? {
            Some(image) => Ok(image),
            None => self.image_status(&pulled.id).await?.ok_or_else(|| RuntimeError::Pull {
                image: reference.to_owned(),
                message: "it was pulled and is not there".to_owned(),
            }),
        }
    }

    async fn watch_pull(&self, progress: &(dyn Fn(u64, Option<u64>) + Send + Sync)) -> Infallible {
        if !self.is_containerd().await.unwrap_or(false) {
            return std::future::pending().await;
        }
        const LIST: &str = "/containerd.services.content.v1.Content/ListStatuses";
        let mut reported = 0;
        let mut ticks = tokio::time::interval(PROGRESS);
        loop {
            ticks.tick().await;
            let answer =
                self.0.rpc.unary::<_, proto::containerd::ListStatusesResponse>(LIST, proto::Empty {}, Some(CALL));
            let Ok(answer) = answer.await else { continue };
            let sum = |part: fn(&proto::containerd::ContentStatus) -> i64| {
                answer.statuses.iter().filter_map(|one| u64::try_from(part(one)).ok()).sum::<u64>()
            };
            let (offset, total) = (sum(|one| one.offset), sum(|one| one.total));
            if offset > reported {
                reported = offset;
                progress(offset, Some(total).filter(|total| *total >= offset));
            }
        }
    }

    /// Takes one name from an image, and removes it with its last. The API would take all of them, and ask no one.
    pub(super) async fn delete_image(&self, reference: &str) -> Result<()> {
        let Some(image) = self.image_status(reference).await? else { return Ok(()) };
        let failed = |status| self.error("remove an image", &format!("image {reference}"), status);
        let others = image.tags.iter().any(|tag| tag != reference);
        if others && image.tags.iter().any(|tag| tag == reference) && self.is_containerd().await? {
            const DELETE: &str = "/containerd.services.images.v1.Images/Delete";
            let question = proto::containerd::DeleteImageRequest { name: reference.to_owned(), sync: true };
            return match self.0.rpc.unary::<_, proto::Empty>(DELETE, question, Some(CALL)).await {
                Err(status) if status.code() != Code::NotFound => Err(failed(status)),
                _ => Ok(()),
            };
        }
        let all = self.call::<_, proto::ListContainersResponse>("ListContainers", proto::Empty {}).await;
        let user = all.map_err(failed)?.containers.into_iter().find(|one| one.image_ref == image.id);
        if let Some(user) = user {
            let message = format!("image {reference} is used by container {}", user.id);
            return Err(RuntimeError::Conflict { message });
        }
        let question = proto::ByImage::of(reference);
        match self.call_within::<_, proto::Empty>(SERVICE, "RemoveImage", question, Some(CALL)).await {
            Err(status) if status.code() != Code::NotFound => Err(failed(status)),
            _ => Ok(()),
        }
    }
}

fn image_file_system(usage: proto::FilesystemUsage) -> Option<ImageFileSystem> {
    let dir = usage.fs_id.map(|id| id.mountpoint).filter(|dir| !dir.is_empty())?;
    let value = |number: proto::UInt64Value| number.value;
    let bytes = usage.used_bytes.map_or(0, value);
    Some(ImageFileSystem { dir: dir.into(), bytes, inodes: usage.inodes_used.map(value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_where_the_runtime_says() {
        let value = |value| Some(proto::UInt64Value { value });
        let fs_id = Some(proto::FilesystemIdentifier { mountpoint: "/i".to_owned() });
        let usage = proto::FilesystemUsage { fs_id, used_bytes: value(7), inodes_used: None };
        let found = ImageFileSystem { dir: "/i".into(), bytes: 7, inodes: None };
        assert_eq!(image_file_system(usage), Some(found));
        assert_eq!(image_file_system(proto::FilesystemUsage::default()), None);
    }
}

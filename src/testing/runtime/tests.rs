#![allow(clippy::unwrap_used, reason = "tests")]

use futures::StreamExt;

use super::*;

fn config(container: &str, attempt: u32) -> ContainerConfig {
    container_config("me", "web-cp1", container, attempt, "web:1")
}

async fn running(fake: &FakeRuntime, container: &str) -> String {
    let id = fake.create_container(&config(container, 0)).await.unwrap();
    fake.start(&id).await.unwrap();
    id
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ignores_sigterm_is_killed_when_its_grace_is_used_up() {
    let fake = FakeRuntime::new().with_image("web:1");
    fake.behave("web", Behaviour { ignores_sigterm: true, ..Behaviour::default() });
    let id = running(&fake, "web").await;
    let begin = Instant::now();
    fake.stop(&id, Duration::from_secs(30)).await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), 30);
    let state = fake.inspect(&id).await.unwrap().state;
    assert!(matches!(state, ContainerState::Exited { exit_code: 137, .. }), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn the_nth_call_fails_once_and_only_that_one() {
    let fake = FakeRuntime::new().with_image("web:1");
    let id = running(&fake, "web").await;
    fake.fail_nth("inspect", 2, RuntimeError::Conflict { message: "asked for".into() });
    assert!(fake.inspect(&id).await.is_ok());
    assert!(matches!(fake.inspect(&id).await, Err(RuntimeError::Conflict { .. })));
    assert!(fake.inspect(&id).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn events_tell_of_the_owners_containers_only_and_end_with_the_connection() {
    let fake = FakeRuntime::new().with_image("web:1");
    let mut mine = fake.events("me").await.unwrap();
    let mut others = fake.events("you").await.unwrap();
    let id = running(&fake, "web").await;
    fake.kill(&id);
    fake.remove(&id).await.unwrap();
    for kind in [RuntimeEventKind::Started, RuntimeEventKind::Exited, RuntimeEventKind::Removed] {
        assert_eq!(
            mine.next().await.unwrap().unwrap(),
            RuntimeEvent { id: id.clone(), pod_uid: "uid-web-cp1".into(), kind }
        );
    }
    fake.disconnect_events();
    assert!(mine.next().await.is_none());
    assert!(others.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_exits_by_itself_does_so_once_a_run() {
    let fake = FakeRuntime::new().with_image("web:1");
    fake.behave("job", Behaviour { exits_after: Some((Duration::from_secs(5), 3)), ..Behaviour::default() });
    let id = running(&fake, "job").await;
    fake.kill(&id);
    fake.start(&id).await.unwrap();
    let begin = Instant::now();
    fake.until("the job ends", |fake| !fake.find("web-cp1", "job").unwrap().state.is_running()).await;
    assert_eq!(begin.elapsed().as_secs(), 5);
    let state = fake.inspect(&id).await.unwrap().state;
    assert!(matches!(state, ContainerState::Exited { exit_code: 3, .. }), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_takes_too_long_is_given_up_at_the_limit() {
    let fake = FakeRuntime::new().with_image("web:1");
    let id = running(&fake, "web").await;
    fake.answer_exec("web", Duration::from_secs(9), |_| Ok(ExecOutput { exit_code: 0, output: "late".into() }));
    let answer = fake.exec(&id, &["true".into()], Duration::from_secs(1)).await;
    assert!(matches!(answer, Err(RuntimeError::Timeout { .. })), "{answer:?}");
    let answer = fake.exec(&id, &["true".into()], Duration::from_secs(10)).await.unwrap();
    assert_eq!(answer.output, "late");
}

#[tokio::test(start_paused = true)]
async fn only_images_that_are_there_can_be_used_and_only_those_the_registry_has_pulled() {
    let fake = FakeRuntime::new();
    assert!(matches!(fake.create_container(&config("web", 0)).await, Err(RuntimeError::NotFound { .. })));
    assert!(matches!(fake.pull("web:1", None, &|_, _| ()).await, Err(RuntimeError::Pull { .. })));
    fake.registry_has("web:1", Duration::from_secs(2));
    fake.pull("web:1", None, &|_, _| ()).await.unwrap();
    assert!(fake.create_container(&config("web", 0)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_fake_behaves_like_a_runtime() {
    let fake = crate::testing::runtime_behaviour::fake("web:1");
    crate::testing::runtime_behaviour::behaves_like_a_runtime(&fake, "web:1").await;
}

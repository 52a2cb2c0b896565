//! Tests of a deployment with one process for each role.

use serde_json::json;

use crate::harness::api::{API, app_path, chat_path, create_app, create_chat, create_message, message_path};
use crate::harness::client::Client;
use crate::harness::deadline::eventually;
use crate::harness::deployment::Deployment;

#[tokio::test(flavor = "multi_thread")]
async fn commands_to_one_process_are_seen_by_queries_to_another() {
    let deployment = Deployment::roles().await;
    let client = deployment.client();
    let token = create_app(client, "an app").await;
    let chat = create_chat(client, &token).await;
    let created = create_message(client, &token, chat, "a fox").await;
    let read = client.get(message_path(&token, chat, 1)).after(&created).send().await.expect(200);
    assert_eq!(read.json()["body"], "a fox");
    let search = format!("{}/messages/search", chat_path(&token, chat));
    let found = client.post(search, &json!({ "query": "fox" })).after(&created).send().await.expect(200);
    assert_eq!(found.json()["total"], 1);

    let deleted = client.delete(message_path(&token, chat, 1)).send().await.expect(204);
    client.get(message_path(&token, chat, 1)).after(&deleted).send().await.expect(410);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_found_while_the_projector_is_paused() {
    let deployment = Deployment::roles().await;
    let client = deployment.client();
    let token = create_app(client, "an app").await;
    let chat = create_chat(client, &token).await;
    let created = create_message(client, &token, chat, "a red fox").await;
    let search = format!("{}/messages/search", chat_path(&token, chat));
    client.post(search.clone(), &json!({ "query": "fox" })).after(&created).send().await.expect(200);

    let [_, _, projector] = deployment.processes() else { panic!("three processes") };
    projector.pause();
    create_message(client, &token, chat, "a grey fox").await;
    let edit = client.put(message_path(&token, chat, 1), &json!({ "body": "a blue fox" }));
    let edited = edit.send().await.expect(200);
    let found = eventually("the edited text is found, and the lag reported", async || {
        let found = client.post(search.clone(), &json!({ "query": "fox" })).send().await.expect(200);
        // The lag is left out if the log does not answer in time, as on a busy machine.
        let is_complete = found.json()["messages"][1]["body"] == "a blue fox" && found.has("read-model-lag");
        is_complete.then_some(found)
    })
    .await;
    assert_eq!(found.json()["messages"][0]["body"], "a grey fox");
    assert_eq!(found.json()["total"], 2);
    assert_eq!(found.header("read-model-lag"), "0");
    assert_eq!(found.header("consistency-token"), edited.header("consistency-token"));
    projector.resume();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_serves_only_the_routes_of_its_role() {
    let deployment = Deployment::roles().await;
    let token = create_app(deployment.client(), "an app").await;
    let [commands, queries, projector] = deployment.processes() else { panic!("three processes") };
    let (commands, queries, projector): (Client, Client, Client) =
        (commands.client(), queries.client(), projector.client());

    for client in [&commands, &queries, &projector] {
        client.get("/livez").send().await.expect(200);
        client.get("/readyz").send_until(200).await;
        client.get("/metrics").send().await.expect(200);
        client.get("/openapi.json").send().await.expect(200);
    }
    let refused = commands.get(app_path(&token)).send().await;
    assert!(matches!(refused.status.as_u16(), 404 | 405), "{}", refused.status);
    let refused = queries.post(format!("{API}/apps"), &json!({ "name": "x" })).send().await;
    assert!(matches!(refused.status.as_u16(), 404 | 405), "{}", refused.status);
    projector.get(app_path(&token)).send().await.expect(404);
}

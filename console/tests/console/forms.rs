//! Forms that are shown again with their values, the texts that fields accept, and error pages.

use axum::body::Body;
use http::{Request, StatusCode};

use crate::fixture::Fixture;
use crate::subjects::helpdesk;

#[tokio::test]
async fn a_form_is_shown_again_with_its_values_and_the_problem_of_the_field() {
    let fixture = helpdesk().await;
    let admin = fixture.admin().await;
    for (path, fields, field_id) in [
        ("/console/events/filter", &[("text", "kept"), ("from", "yesterday")][..], "from"),
        ("/console/events/filter", &[("text", "kept"), ("app", "nothing")], "app"),
        ("/console/events/filter", &[("text", "kept"), ("at", "soon")], "jump"),
        ("/console/search", &[("query", "kept"), ("app", "nothing")], "app"),
        ("/console/proofs/event", &[("position", "1"), ("checkpoint", "kept")], "prove-checkpoint"),
        ("/console/proofs/event", &[("position", "x"), ("checkpoint", "kept")], "position"),
        ("/console/proofs/check", &[("proof", "kept"), ("public_key", "")], "proof"),
        ("/console/actions/projections.rebuild", &[("reason", "kept")], "rebuild"),
        ("/console/actions/audit.verify", &[("reason", "x"), ("checkpoint", "kept")], "verify-checkpoint"),
        (
            "/console/actions/audit.verify",
            &[("checkpoint", "kept"), ("public_key", "x")],
            "verify-checkpoint",
        ),
        ("/console/actions/audit.verify", &[("checkpoint", ""), ("public_key", "kept")], "verify-key"),
    ] {
        let page = fixture.post(&admin, path, fields).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert!(page.body.contains(&format!("id=\"{field_id}-problem\"")), "{path}: {}", page.text());
        let is_kept = page.body.contains("value=\"kept\"") || page.body.contains(">kept</textarea>");
        assert!(is_kept, "{path} lost the value that was sent: {}", page.body);
        assert!(page.body.contains("<nav class=\"nav\""), "{path} has no navigation");
    }
    for (path, field_id) in [
        ("/console/apps/1?at=soon", "at"),
        ("/console/apps/1?chat=soon", "chat-number"),
        ("/console/apps/1/chats/1?around=soon", "around"),
        ("/console/apps/1/chats/1/messages/2?at=soon", "at"),
        ("/console/apps/1/diff?from=1&to=soon", "to"),
    ] {
        let page = fixture.get(&admin, path).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert!(page.body.contains(&format!("id=\"{field_id}-problem\"")), "{path}: {}", page.text());
        assert!(page.body.contains("value=\"soon\""), "{path}: {}", page.body);
    }
}

#[tokio::test]
async fn the_selected_dead_letters_stay_selected_when_too_many_are_selected() {
    let fixture = Fixture::new().await;
    let position = fixture.with_dead_letter().await;
    let admin = fixture.admin().await;
    let dead_letters: Vec<String> =
        (0..21).map(|offset| format!("read_model/{}", position.get() + offset)).collect();
    let mut fields: Vec<_> =
        dead_letters.iter().map(|dead_letter| ("dead_letter", dead_letter.as_str())).collect();
    fields.push(("reason", "kept"));
    let page = fixture.post(&admin, "/console/actions/dead_letters.retry", &fields).await;
    page.assert_shows(&["21 are selected. At most 20 can be selected at a time."]);
    // The page has a row only for the first of these dead letters.
    assert_eq!(page.body.matches(" checked").count(), 1, "{}", page.body);
    assert!(page.body.contains("value=\"kept\""));
}

#[tokio::test]
async fn values_as_pages_show_them_are_accepted_as_input() {
    let fixture = helpdesk().await;
    let reader = fixture.reader().await;
    // The events of the fixture were recorded at this time.
    let shown = "2026-09-21 14:13:20.007 UTC";
    fixture.get(&reader, "/console/events/5").await.assert_shows(&[shown]);
    let fields = [("from", shown), ("to", "2026-09-21 14:14"), ("app", "1"), ("chat", "1,000")];
    let filtered = fixture.post(&reader, "/console/events/filter", &fields).await;
    assert_eq!(filtered.status, StatusCode::SEE_OTHER, "{}", filtered.text());
    let jumped = fixture.post(&reader, "/console/events/filter", &[("at", shown)]).await;
    assert_eq!(jumped.location(), "/console/events?before=7");
    let query: String = form_urlencoded::byte_serialize(shown.as_bytes()).collect();
    for path in [
        format!("events?from={query}"),
        format!("apps/1?at={query}"),
        "apps/1?at=1,200".to_owned(),
        format!("apps/1/diff?from=1&to={query}"),
        format!("search?app=1&query=plug&from={query}"),
    ] {
        let page = fixture.get(&reader, &format!("/console/{path}")).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.text());
    }
}

#[tokio::test]
async fn an_error_page_has_the_navigation_of_the_signed_in_operator() {
    let fixture = Fixture::new().await;
    let reader = fixture.reader().await;
    for path in
        ["/console/events/99", "/console/apps/7", "/console/nothing", "/console/dead-letters?projection=x"]
    {
        let page = fixture.get(&reader, path).await;
        assert!(page.status.is_client_error(), "{path}");
        assert!(page.body.contains("<nav class=\"nav\"") && page.body.contains("role=\"alert\""), "{path}");
    }
    let stranger = Request::post("/console/sign-out").body(Body::empty()).unwrap();
    let page = fixture.send(stranger).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert!(!page.body.contains("<nav class=\"nav\""));
}

//! The sender and the data of a message in OpenAPI documents.

use utoipa::ToSchema;

/// The person or program that sent a message, as the application named it when the message was sent.
#[derive(ToSchema)]
#[schema(as = Sender)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes a type of the domain")]
pub struct SenderSchema {
    /// The application's own id of the sender: 1 to 128 characters without control characters.
    #[schema(min_length = 1, max_length = 128, example = "u-17")]
    id: String,
    /// The name that was shown when the message was sent: up to 255 characters.
    #[schema(max_length = 255, example = "Nadia")]
    name: Option<String>,
}

/// A JSON object of the application: at most 4,096 bytes without insignificant white space, and 16 levels deep. It is
/// returned as it was sent, without that white space, and not searched.
#[derive(ToSchema)]
#[schema(as = MessageData, value_type = Object, example = json!({ "client": "ios", "reply_to": 12 }))]
#[expect(dead_code, reason = "describes a type of the domain")]
pub struct MessageDataSchema(serde_json::Value);

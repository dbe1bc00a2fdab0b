//! The manual: what operators and backend authors need, beside the code that does it.

#[doc = include_str!("quick-start.md")]
pub mod quick_start {}

#[doc = include_str!("concepts.md")]
pub mod concepts {}

#[doc = include_str!("configuration.md")]
pub mod configuration {}

#[doc = include_str!("reasons.md")]
pub mod reasons {}

#[doc = include_str!("headers.md")]
pub mod headers {}

#[doc = include_str!("upstream.md")]
pub mod upstream {}

#[doc = include_str!("upstreams.md")]
pub mod upstreams {}

#[doc = include_str!("tokens.md")]
pub mod tokens {}

#[doc = include_str!("sessions.md")]
pub mod sessions {}

#[doc = include_str!("streams.md")]
pub mod streams {}

#[doc = include_str!("browser.md")]
pub mod browser {}

#[doc = include_str!("vendors.md")]
pub mod vendors {
    #[doc = include_str!("vendors/karta.md")]
    pub mod karta {}

    #[doc = include_str!("vendors/agentic-trust.md")]
    pub mod agentic_trust {}

    #[doc = include_str!("vendors/halo.md")]
    pub mod halo {}

    #[doc = include_str!("vendors/widgent.md")]
    pub mod widgent {}
}

#[doc = include_str!("backends.md")]
pub mod backends {
    #[doc = include_str!("backends/open-webui.md")]
    pub mod open_webui {}

    #[doc = include_str!("backends/librechat.md")]
    pub mod librechat {}

    #[doc = include_str!("backends/langserve.md")]
    pub mod langserve {}

    #[doc = include_str!("backends/openai.md")]
    pub mod openai {}
}

#[doc = include_str!("sensitive-actions.md")]
pub mod sensitive_actions {}

#[doc = include_str!("bodies.md")]
pub mod bodies {}

#[doc = include_str!("listeners.md")]
pub mod listeners {}

#[doc = include_str!("forward-auth.md")]
pub mod forward_auth {}

#[doc = include_str!("install.md")]
pub mod install {}

#[doc = include_str!("operation.md")]
pub mod operation {}

#[doc = include_str!("enforce.md")]
pub mod enforce {}

#[doc = include_str!("rotation.md")]
pub mod rotation {}

#[doc = include_str!("leaked-secret.md")]
pub mod leaked_secret {}

#[doc = include_str!("monitoring.md")]
pub mod monitoring {}

#[doc = include_str!("upgrade.md")]
pub mod upgrade {}

#[doc = include_str!("kubernetes.md")]
pub mod kubernetes {}

#[doc = include_str!("telemetry.md")]
pub mod telemetry {}

#[doc = include_str!("status.md")]
pub mod status {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("faults.md")]
pub mod faults {}

#[doc = include_str!("threats.md")]
pub mod threats {}

#[doc = include_str!("reload.md")]
pub mod reload {}

#[doc = include_str!("book.md")]
pub mod book {}

/// Why things are as they are: one record per decision that could have gone another way.
pub mod decisions {
    #[doc = include_str!("decisions/0001-layers.md")]
    pub mod layers {}

    #[doc = include_str!("decisions/0002-null-and-empty-ids-are-absent.md")]
    pub mod null_and_empty_ids_are_absent {}

    #[doc = include_str!("decisions/0003-dot-segments-are-refused.md")]
    pub mod dot_segments_are_refused {}

    #[doc = include_str!("decisions/0004-first-matching-route-applies.md")]
    pub mod first_matching_route_applies {}

    #[doc = include_str!("decisions/0005-one-trailing-newline-of-a-secret-file-is-cut.md")]
    pub mod one_trailing_newline_of_a_secret_file_is_cut {}

    #[doc = include_str!("decisions/0006-what-is-in-force-does-not-give-way.md")]
    pub mod what_is_in_force_does_not_give_way {}

    #[doc = include_str!("decisions/0007-session-errors-come-before-the-tenant.md")]
    pub mod session_errors_come_before_the_tenant {}

    #[doc = include_str!("decisions/0008-a-verified-session-keeps-its-level-in-off.md")]
    pub mod a_verified_session_keeps_its_level_in_off {}

    #[doc = include_str!("decisions/0009-chunked-bodies-are-held-up-to-64-kib.md")]
    pub mod chunked_bodies_are_held_up_to_64_kib {}

    #[doc = include_str!("decisions/0010-bytes-are-watched-before-they-are-parsed.md")]
    pub mod bytes_are_watched_before_they_are_parsed {}

    #[doc = include_str!("decisions/0011-limits-stand-at-two-stops.md")]
    pub mod limits_stand_at_two_stops {}

    #[doc = include_str!("decisions/0012-upstreams-choose-by-what-they-can-see.md")]
    pub mod upstreams_choose_by_what_they_can_see {}

    #[doc = include_str!("decisions/0013-issuers-keys-are-fetched-beside-the-requests.md")]
    pub mod issuers_keys_are_fetched_beside_the_requests {}

    #[doc = include_str!("decisions/0014-sockets-are-handed-over-on-request.md")]
    pub mod sockets_are_handed_over_on_request {}

    #[doc = include_str!("decisions/0015-every-reserved-name-is-answered.md")]
    pub mod every_reserved_name_is_answered {}

    #[doc = include_str!("decisions/0016-the-status-page-is-kept-to-the-operators-browser.md")]
    pub mod the_status_page_is_kept_to_the_operators_browser {}

    #[doc = include_str!("decisions/0017-what-a-backend-may-answer.md")]
    pub mod what_a_backend_may_answer {}

    #[doc = include_str!("decisions/0018-the-image-starts-from-nothing.md")]
    pub mod the_image_starts_from_nothing {}

    #[doc = include_str!("decisions/0019-the-agent-outlives-the-gateway.md")]
    pub mod the_agent_outlives_the_gateway {}

    #[doc = include_str!("decisions/0023-the-manual-is-derived-and-run.md")]
    pub mod the_manual_is_derived_and_run {}

    #[doc = include_str!("decisions/0024-field-names-are-not-kept-as-spelt.md")]
    pub mod field_names_are_not_kept_as_spelt {}
}

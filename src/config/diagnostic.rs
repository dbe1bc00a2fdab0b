//! What can be wrong with a configuration: one table of stable codes, and how a problem is shown. Decides nothing; the
//! readers record, [`crate::config::load`] sorts and renders. Secrets are never shown: see `Document::mask`.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Whether the configuration can be used all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, and an operator should know.
    Warning,
}

macro_rules! codes {
    ($($name:ident = $code:literal $severity:ident $sentence:literal;)*) => {
        /// One kind of problem. Codes are stable: they stand in golden files and in people's searches.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $sentence] $name,)*
        }

        impl Code {
            /// Every code, in table order.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// As shown in brackets after `error` or `warning`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Code::$name => concat!("config::", $code),)*
                }
            }

            /// Error or warning.
            pub const fn severity(self) -> Severity {
                match self {
                    $(Code::$name => Severity::$severity,)*
                }
            }
        }
    };
}

codes! {
    Unreadable = "unreadable" Error "A file or directory that the configuration is made of cannot be read.";
    Syntax = "syntax" Error "The file is not TOML.";
    DuplicateKey = "duplicate_key" Error "A key or table stands twice.";
    UnknownKey = "unknown_key" Error "A key that nothing reads.";
    MissingKey = "missing_key" Error "A key that must be there.";
    WrongType = "wrong_type" Error "A value of another TOML type than the key takes.";
    UnknownValue = "unknown_value" Error "A word that is not one of those the key takes.";
    UnitMissing = "unit_missing" Error "A duration or size without its unit.";
    OutOfRange = "out_of_range" Error "A number, duration or size outside its bounds.";
    BadValue = "bad_value" Error "A value that is not of the form the key takes.";
    NoEffect = "no_effect" Error "A key that does nothing beside its neighbours.";
    AddressClash = "address_clash" Error "Two listeners on one address.";
    ListenerPlace = "listener_place" Error "A listener without exactly one of address and unix.";
    UpstreamPlace = "upstream_place" Error "An upstream without exactly one of address, addresses and unix.";
    UpstreamUnknown = "upstream_unknown" Error "A tenant or route goes to an upstream that there is not.";
    Certificate = "certificate" Error "A certificate, key or authority that TLS cannot use.";
    ProxyUntrusted = "proxy_untrusted" Error "A listener with the PROXY protocol, and nobody who may speak it.";
    ForwardAuthUntrusted = "forward_auth_untrusted" Error "A forward-auth listener, and nobody who may ask it.";
    BodyIdsUnseen = "body_ids_unseen" Error "A tenant whose ids stand in bodies, and a forward-auth listener, which sees none.";
    BadHeader = "bad_header" Error "A header name that cannot be used here.";
    BadPlace = "bad_place" Error "A place that a value cannot stand in.";
    BodyPathsMissing = "body_paths_missing" Error "Body members are inspected on no path, or paths are held for nothing.";
    DuplicateTenant = "duplicate_tenant" Error "Two tenants with one id.";
    DuplicateEmbedKey = "duplicate_embed_key" Error "One embed key twice.";
    DuplicateId = "duplicate_id" Error "Two keys or headers of one list with one name.";
    SecretSource = "secret_source" Error "Key material without exactly one source.";
    SecretUnusable = "secret_unusable" Error "Key material that cannot be read, decoded or trusted.";
    SecretReused = "secret_reused" Error "Key material that serves two purposes.";
    FormatMissing = "format_missing" Error "A secret that does not say what it signs.";
    PublicKey = "public_key" Error "A public key or key set that cannot be used.";
    KeyWindow = "key_window" Error "A key whose time window is empty.";
    AssertionKey = "assertion_key" Error "No assertion key that a scheme can sign with.";
    AssertionShared = "assertion_shared" Error "A secret assertion key that two backends would share.";
    SecretShort = "secret_short" Warning "A secret shorter than its MAC's output.";
    SecretNewline = "secret_newline" Warning "A secret's file ends in a newline.";
    HostGenerated = "host_generated_subjects" Warning "One secret signs several formats.";
    AdminExposed = "admin_exposed" Warning "The admin listener is reachable from other machines.";
    CertificateTime = "certificate_time" Warning "A certificate that clients refuse now: it has ended, or has not begun.";
    TrustsAnybody = "trusts_anybody" Warning "Trusted proxies that anybody could be.";
    NoTenant = "no_tenant" Warning "No tenant: every request is denied.";
    NoEmbedKey = "no_embed_key" Warning "A tenant that no request can name.";
    NoOrigin = "no_origin" Warning "A tenant that no page can call.";
    NoSecret = "no_secret" Warning "A tenant that can verify nobody.";
    NamesMissing = "names_missing" Warning "Tenants share an upstream and one lists no names.";
    UpstreamUnused = "upstream_unused" Warning "An upstream that no tenant goes to.";
    NotEnforced = "not_enforced" Warning "A rule that mode = \"off\" does not enforce.";
    ClaimNotForwarded = "claim_not_forwarded" Warning "A route asks for a claim that the tenant does not pass on.";
    RouteShadowed = "route_shadowed" Warning "A route that an earlier one leaves nothing.";
    MappedUnsigned = "mapped_unsigned" Warning "Mapped headers that no signature covers.";
    StepUpUnreachable = "step_up_unreachable" Warning "A route wants a step-up that no token of the tenant can show.";
}

/// A text that diagnostics point into.
#[derive(Debug)]
pub(super) struct Document {
    /// As shown: the path, or what a preset is called.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
    /// Sorts diagnostics: the main file comes first.
    pub(super) order: usize,
    /// Whether there is a text to show.
    pub(super) is_read: bool,
    masked: RefCell<Vec<Range<usize>>>,
}

impl Document {
    pub(super) fn new(name: impl Into<String>, text: impl Into<String>, order: usize) -> Rc<Self> {
        Rc::new(Self { name: name.into(), text: text.into(), order, is_read: true, masked: RefCell::default() })
    }

    /// The main file, before it could be read.
    pub(super) fn unread(name: impl Into<String>) -> Rc<Self> {
        Rc::new(Self { name: name.into(), text: String::new(), order: 0, is_read: false, masked: RefCell::default() })
    }

    /// Hides these bytes wherever the document is shown: somebody wrote a secret where its source belongs.
    pub(super) fn mask(&self, span: Range<usize>) {
        self.masked.borrow_mut().push(span);
    }

    /// The text as shown: the same length, without what is masked.
    fn shown(&self) -> String {
        let masked = self.masked.borrow();
        if masked.is_empty() {
            return self.text.clone();
        }
        let hide = |(at, c): (usize, char)| {
            let hidden = c != '\n' && masked.iter().any(|span| span.contains(&at));
            std::iter::repeat_n(if hidden { '*' } else { c }, if hidden { c.len_utf8() } else { 1 })
        };
        self.text.char_indices().flat_map(hide).collect()
    }
}

/// Some bytes of a document.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) document: Rc<Document>,
    pub(super) span: Range<usize>,
}

impl Site {
    /// A span that the renderer can take: inside the text, on character boundaries.
    fn clamped(&self) -> Range<usize> {
        let text = &self.document.text;
        let start = text.floor_char_boundary(self.span.start.min(text.len()));
        let end = text.ceil_char_boundary(self.span.end.clamp(start, text.len()));
        start..end
    }
}

/// One problem.
#[derive(Clone, Debug)]
pub(super) struct Diagnostic {
    pub(super) code: Code,
    pub(super) title: String,
    pub(super) site: Site,
    pub(super) related: Option<(Site, &'static str)>,
    pub(super) help: Option<String>,
}

impl Diagnostic {
    pub(super) fn new(code: Code, site: Site, title: impl Into<String>) -> Self {
        Self { code, title: title.into(), site, related: None, help: None }
    }

    /// Says what to do.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points at a second place.
    pub(super) fn beside(mut self, site: Site, label: &'static str) -> Self {
        self.related = Some((site, label));
        self
    }

    /// File order, then place, then code: two loads of the same files say the same.
    pub(super) fn sort_key(&self) -> (usize, usize, Code, String) {
        (self.site.document.order, self.site.span.start, self.code, self.title.clone())
    }
}

/// How diagnostics are rendered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// Text only: for files, logs and golden tests.
    #[default]
    Plain,
    /// With ANSI colours: for a terminal.
    Coloured,
}

/// Renders one diagnostic: title, file:line:col, the line with a caret, the hint.
pub(super) fn render(diagnostic: &Diagnostic, look: Look) -> String {
    let renderer = match look {
        Look::Plain => Renderer::plain(),
        Look::Coloured => Renderer::styled(),
    };
    let level = match diagnostic.code.severity() {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let here = &diagnostic.site;
    let snippet = |document: &Document| Snippet::source(document.shown()).path(document.name.clone());
    let mut primary = snippet(&here.document).annotation(AnnotationKind::Primary.span(here.clamped()));
    let mut elsewhere = None;
    if let Some((there, label)) = &diagnostic.related {
        let annotation = AnnotationKind::Context.span(there.clamped()).label(*label);
        if there.document.order == here.document.order {
            primary = primary.annotation(annotation);
        } else {
            elsewhere = Some(snippet(&there.document).annotation(annotation));
        }
    }
    let title = level.primary_title(printable(&diagnostic.title)).id(diagnostic.code.as_str());
    let mut group: Group<'_> = if here.document.is_read { title.element(primary) } else { Group::with_title(title) };
    if let Some(elsewhere) = elsewhere {
        group = group.element(elsewhere);
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(printable(help)));
    }
    renderer.render(&[group])
}

/// What a terminal may be sent: a file's control characters would be obeyed.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

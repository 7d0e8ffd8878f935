//! Every word of the page, in English and Turkish: one line for each. One that lacks a language does not compile.
//!
//! Braces stand for values, in their order.

/// The languages of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    English,
    Turkish,
}

impl Language {
    /// The one of this code.
    pub(super) fn named(code: &str) -> Option<Self> {
        [Self::English, Self::Turkish].into_iter().find(|language| language.code() == code)
    }

    /// Its code, as browsers have it.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Turkish => "tr",
        }
    }

    /// Its own name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::Turkish => "Türkçe",
        }
    }

    /// Its words.
    pub(super) fn texts(self) -> &'static Texts {
        match self {
            Self::English => &ENGLISH,
            Self::Turkish => &TURKISH,
        }
    }
}

/// Makes the struct of all texts, and one of it for each language.
macro_rules! texts {
    ($($name:ident: $english:literal, $turkish:literal;)+) => {
        /// Every word of the page in one language.
        pub(super) struct Texts {
            $(pub(super) $name: &'static str,)+
        }

        const ENGLISH: Texts = Texts { $($name: $english,)+ };

        const TURKISH: Texts = Texts { $($name: $turkish,)+ };

        #[cfg(test)]
        const ALL: &[(&str, &str, &str)] = &[$((stringify!($name), $english, $turkish),)+];
    };
}

texts! {
    // The frame.
    operator_page: "Operator page", "Operatör sayfası";
    skip: "Skip to the content", "İçeriğe geç";
    views: "Views", "Görünümler";
    now: "Now", "Şu an";
    conversations: "Conversations", "Görüşmeler";
    dead_letters: "Dead letters", "Ölü mektuplar";
    completeness: "Completeness", "Bütünlük";
    backfills: "Backfills", "Geri yüklemeler";
    quota: "Quota", "Kota";
    settings: "Settings", "Ayarlar";
    audit: "Audit", "Denetim";
    light: "Light", "Açık";
    dark: "Dark", "Koyu";
    as_system: "As my system", "Sistemim gibi";
    sign_in: "Sign in", "Oturum aç";
    sign_out: "Sign out", "Oturumu kapat";
    role_read: "may read", "okuyabilir";
    role_act: "may act", "işlem yapabilir";
    times_are_utc: "All times are UTC.", "Bütün saatler UTC'dir.";
    live: "Live.", "Canlı.";
    live_lost: "Not live: the daemon does not answer.", "Canlı değil: servis yanıt vermiyor.";
    not_live: "Reload to see the latest.", "Son durumu görmek için yenileyin.";
    not_done: "This cannot be shown or done", "Bu gösterilemiyor veya yapılamıyor";
    try_again: "Try again", "Yeniden dene";
    may_not_act: "You may read only. Sign in with the token that may act.", "Yalnızca okuyabilirsiniz. İşlem yapabilen jetonla oturum açın.";
    only_who_may_act: "Sign in with the token that may act to do this.", "Bunu yapmak için işlem yapabilen jetonla oturum açın.";
    foreign_form: "This form is too old, or another page sent it. Go back, reload, and try again.", "Bu form çok eski veya başka bir sayfadan gönderildi. Geri dönün, yenileyin ve yeniden deneyin.";
    is_written_down: "Who does this, and when, is written to the audit first.", "Bunu kimin ne zaman yaptığı önce denetime yazılır.";
    older: "Older →", "Daha eski →";

    // The entrance.
    token: "Token", "Jeton";
    token_help: "The tokens are in [admin] read_token and act_token of the settings. On the machine itself, the token in admin.json in the state directory will do.", "Jetonlar ayarlarda [admin] read_token ve act_token altındadır. Makinenin kendisinde, durum dizinindeki admin.json dosyasının jetonu da yeterlidir.";
    wrong_token: "This is no token of this daemon.", "Bu, bu servisin bir jetonu değil.";
    too_many_tokens: "Too many wrong tokens. Try again in five minutes.", "Çok fazla yanlış jeton. Beş dakika sonra yeniden deneyin.";

    // Units.
    unit_seconds: "s", "sn";
    unit_minutes: "min", "dk";
    unit_hours: "h", "sa";
    unit_days: "d", "gün";

    // Now.
    verdict_well: "All is well", "Her şey yolunda";
    verdict_well_detail: "No call is lost, and none is late.", "Hiçbir görüşme kayıp veya gecikmiş değil.";

    verdict_since: "since {}", "{} saatinden beri";
    calls_wait: "Calls that wait for it: {}. Nothing is lost; all goes on when it is back.", "Onu bekleyen görüşme: {}. Hiçbir şey kaybolmadı; geri gelince her şey devam eder.";
    verdict_unreadable: "The state cannot be read", "Durum okunamıyor";
    verdict_late: "Calls are late", "Görüşmeler gecikiyor";
    verdict_late_detail: "The oldest one is due for {}. See which stage is slow or fails.", "En eskisi {} süredir sırada. Hangi aşamanın yavaş veya hatalı olduğuna bakın.";
    verdict_held: "A reading of the group is held", "Grubun bir okuması bekletiliyor";
    verdict_held_detail: "Many agents would go at once, so that nothing changes until you decide.", "Çok sayıda temsilci aynı anda gidecekti; siz karar verene kadar hiçbir şey değişmez.";
    verdict_lowered: "NICE lets us ask less than usual", "NICE her zamankinden az sorguya izin veriyor";
    verdict_lowered_detail: "No call is lost. The limit rises again by itself.", "Hiçbir görüşme kayıp değil. Sınır kendiliğinden yükselir.";
    verdict_missed: "A service is missed: {}", "Bir servis kayıp: {}";
    verdict_missed_detail: "It neither ended in order nor says anything. Start it again; others take over its calls.", "Ne düzgün kapandı ne de ses veriyor. Yeniden başlatın; görüşmelerini diğerleri üstlenir.";
    verdict_dead: "Dead letters wait for a decision: {}", "Karar bekleyen ölü mektup: {}";
    verdict_dead_detail: "All else is well: no call is late.", "Geri kalan her şey yolunda: gecikmiş görüşme yok.";
    verdict_look: "Something needs a look", "Bakılması gereken bir şey var";
    not_known_now: "Not known right now, or as last seen: {}.", "Şu anda bilinmiyor veya son görülen hâliyle: {}.";
    oldest_call: "Oldest call", "En eski görüşme";
    goal: "due; the goal is below {}", "sırada; hedef {} altında";
    waits_for: "waits for {}; the goal is below {}", "{} bekliyor; hedef {} altında";
    due_now: "Due now", "Sırada";
    and_backfill: "and {} of backfills", "ve geri yüklemelerden {}";
    waiting: "Waiting for their time", "Zamanını bekleyen";
    in_work: "{} in work", "{} işlemde";
    and_no_recording: "and {} without a recording", "ve kayıtsız {}";
    set_aside: "set aside, with a reason", "nedeniyle kenara ayrılmış";
    flow: "The flow", "Akış";
    flow_says: "The flow from NICE to the analysis queue. {} calls wait in the queue, {} are ready. The figures are in the table below.", "NICE'tan analiz kuyruğuna akış. Kuyrukta {} görüşme bekliyor, {} görüşme hazır. Sayılar aşağıdaki tabloda.";
    producer: "NICE PRODUCER", "NICE ÜRETİCİSİ";
    consumer: "CONVERSATION CONSUMER", "GÖRÜŞME TÜKETİCİSİ";
    per_minute: "a minute", "dakikada";
    failures: "{} failed lately", "son hatalar: {}";
    queue: "Queue", "Kuyruk";
    queue_live: "{} live", "{} canlı";
    queue_backfill: "{} backfill", "{} geri yükleme";
    queue_delayed: "{} wait for their time", "{} zamanını bekliyor";
    unknown: "unknown", "bilinmiyor";
    analysis_queue: "Analysis queue", "Analiz kuyruğu";
    ready_for_analysis: "ready so far", "şu ana dek hazır";
    stages_in_figures: "Stages in figures, since the services began", "Servisler başladığından beri aşamaların sayıları";
    stage: "Stage", "Aşama";
    stage_source: "Source", "Kaynak";
    stage_dedupe: "Dedupe", "Tekilleştir";
    stage_enqueue: "Enqueue", "Kuyruğa koy";
    stage_dequeue: "Dequeue", "Kuyruktan al";
    stage_await_recording: "Await recording", "Kaydı bekle";
    stage_fetch_metadata: "Fetch metadata", "Bilgileri al";
    stage_download_recording: "Download", "İndir";
    stage_persist: "Persist", "Kaydet";
    stage_upload: "Upload", "Depola";
    stage_other: "other", "diğer";
    outcome_ok: "passed on", "ilerledi";
    outcome_done: "done", "bitti";
    outcome_retry: "tried again", "yeniden denendi";
    outcome_busy: "quota", "kota";
    outcome_not_ready: "not ready", "hazır değil";
    outcome_dead_letter: "dead letter", "ölü mektup";
    outcome_handed_back: "handed back", "geri verildi";
    outcome_other: "other", "diğer";
    outside_systems: "Outside systems", "Dış sistemler";
    system: "System", "Sistem";
    system_nice: "NICE", "NICE";
    system_media_host: "Host of the recordings", "Kayıtların sunucusu";
    system_recording_store: "Recording store", "Kayıt deposu";
    system_catalog: "Knovvu database", "Knovvu veritabanı";
    system_call: "This call alone", "Yalnızca bu görüşme";
    state: "State", "Durum";
    since: "Since", "Ne zamandan beri";
    system_built_in: "built in", "yerleşik";
    system_well: "well", "iyi";
    system_unasked: "not asked yet", "henüz sorulmadı";
    system_limited: "limited", "sınırlı";
    system_failing: "failing", "hata veriyor";
    system_away: "does not answer", "yanıt vermiyor";
    system_refused: "refuses us", "bizi reddediyor";
    system_waiting: "Calls wait", "Bekleyen";
    remedy_refused: "Look at the key in the settings; NICE may have replaced it.", "Ayarlardaki anahtara bakın; NICE değiştirmiş olabilir.";
    remedy_nice: "NICE itself is away, or the way to it: look at the network.", "NICE'ın kendisine veya ona giden ağa bakın.";
    remedy_recording_store: "Look at the store and at the network to it.", "Depoya ve ona giden ağa bakın.";
    remedy_catalog: "Look at PostgreSQL and at the network to it.", "PostgreSQL'e ve ona giden ağa bakın.";
    remedy_queue: "Look at the broker and at the network to it.", "Mesaj aracısına ve ona giden ağa bakın.";
    services: "Services", "Servisler";
    service: "Service", "Servis";
    service_alive: "works", "çalışıyor";
    service_missed: "missed", "kayıp";
    service_waits: "waits for its turn", "sırasını bekliyor";
    heard_of: "Last heard of", "Son haber";
    made_ready: "Made ready", "Hazırladığı";
    version: "Version", "Sürüm";
    ago: "{} ago", "{} önce";
    just_now: "just now", "şimdi";
    lowered_or_held: "Limits, and what is held", "Sınırlar ve bekletilenler";
    family_acd: "ACD requests", "ACD istekleri";
    family_media: "Recording requests", "Kayıt istekleri";
    used_of: "{} of {} used", "{} / {} kullanıldı";
    lowered_from: "lowered from {}", "{} değerinden düşürüldü";
    agents: "Agents", "Temsilciler";
    agents_active: "{} active, {} inactive", "{} etkin, {} etkin değil";
    agents_missing: "NICE counts {} agents more than it names.", "NICE, adını verdiğinden {} fazla temsilci sayıyor.";
    found_up_to: "Found up to", "Bulunma sınırı";
    last_comparison: "Last comparison", "Son karşılaştırma";
    running_for: "Running for", "Çalışma süresi";
    never: "never", "hiç";

    // Conversations.
    conversation: "Conversation", "Görüşme";
    find: "Find", "Bul";
    find_by_id: "Find by id", "Kimlikle bul";
    find_by_time: "Find by agent and time", "Temsilci ve zamanla bul";
    contact_id: "Contact id", "Görüşme kimliği";
    agent: "Agent", "Temsilci";
    every_agent: "every agent", "her temsilci";
    from_day: "From day", "İlk gün";
    to_day: "To day", "Son gün";
    ended_in_range: "Ended in this range", "Bu aralıkta bitenler";
    nothing_found: "No conversation of this range is known. One that is still on its way has no row yet: find it by its id.", "Bu aralıktan bilinen görüşme yok. Henüz yolda olanın satırı yoktur: onu kimliğiyle bulun.";
    ended_at: "Ended", "Bitiş";
    began_at: "Began", "Başlangıç";
    length: "Length", "Süre";
    facts: "Facts", "Bilgiler";
    no_row_yet: "It has no row yet: its metadata was not saved.", "Henüz satırı yok: bilgileri kaydedilmedi.";
    master_contact: "Master contact", "Ana görüşme";
    direction: "Direction", "Yön";
    inbound: "inbound", "gelen";
    outbound: "outbound", "giden";
    found_by: "Found by", "Bulan";
    in_analysis_queue: "In the analysis queue", "Analiz kuyruğunda";
    taken_by_analysis: "Taken by the analysis", "Analizin aldığı an";
    not_yet: "not yet", "henüz değil";
    customer_number: "Customer's number", "Müşterinin numarası";
    hidden_number: "hidden", "gizli";
    show_number: "Show the number", "Numarayı göster";
    no_number: "NICE told none", "NICE bildirmedi";
    recordings: "Recordings", "Ses kayıtları";
    no_recordings: "None is stored.", "Depolanmış kayıt yok.";
    recordings_missing: "NICE names {} more that it did not give.", "NICE, vermediği {} kayıt daha bildiriyor.";
    recording_n: "Recording {}", "Kayıt {}";
    position: "Position", "Sıra";
    size: "Size", "Boyut";
    place: "Place", "Yer";
    listen: "Listen", "Dinle";
    playback_is_off: "[admin] playback is off.", "[admin] playback kapalı.";
    timeline: "Timeline", "Zaman çizelgesi";
    timeline_says: "{} steps in {}, from", "{} adım, {} içinde; başlangıç";
    no_hops: "No step is known any more.", "Bilinen adım kalmadı.";
    hops_left_out: "The first {} steps are left out.", "İlk {} adım gösterilmiyor.";
    attempt_n: "Attempt {}", "Deneme {}";
    waited_before: "waited {} before", "öncesinde {} bekledi";
    legend_work: "work", "iş";
    legend_wait: "wait", "bekleme";
    legend_retry: "to be tried again", "yeniden denenecek";
    legend_dead: "set aside", "kenara ayrıldı";
    state_ready: "Ready", "Hazır";
    state_no_recording: "No recording", "Kayıt yok";
    state_metadata_saved: "On its way", "Yolda";
    state_under_way: "On its way", "Yolda";
    state_dead_letter: "Dead letter", "Ölü mektup";
    state_erased: "Erased", "Silindi";
    state_dropped: "Dropped", "Bırakıldı";
    set_aside_at: "Set aside at \"{}\":", "\"{}\" aşamasında kenara ayrıldı:";
    trace_id: "Trace id", "İz kimliği";

    // Dead letters.
    dead_letter_n: "Dead letter {}", "Ölü mektup {}";
    no_dead_letters: "There are none: nothing was set aside.", "Hiç yok: kenara ayrılan bir şey olmadı.";
    letters_in_groups: "Dead letters: {}. Groups by reason and stage: {}.", "Ölü mektup: {}. Neden ve aşamaya göre grup: {}.";
    letters: "{} dead letters", "{} ölü mektup";
    letters_in_days: "{} within the last {} days", "{} adet, son {} gün içinde";
    reason: "Reason", "Neden";
    count: "Count", "Sayı";
    last_days: "Last 14 days", "Son 14 gün";
    newest: "Newest", "En yeni";
    acts: "Acts", "İşlemler";
    replay: "Replay …", "Yeniden oynat …";
    drop: "Drop …", "Bırak …";
    goes_back_at: "the first goes back by itself at {}", "ilki kendiliğinden döner: {}";
    goes_back: "Goes back", "Geri döner";
    not_by_itself: "not by itself", "kendiliğinden dönmez";
    only_newest_counted: "Counted are the newest {} letters, in the {} largest groups; there may be more.", "Sayılanlar: en yeni {} mektup, en büyük {} grupta; daha fazlası olabilir.";
    only_first: "Only the first {} are shown.", "Yalnızca ilk {} gösteriliyor.";
    oldest: "← Oldest", "← En eski";
    newer: "Newer →", "Daha yeni →";
    number: "Number", "Numara";
    at: "When", "Ne zaman";
    message: "Message", "Mesaj";
    replay_title: "Replay?", "Yeniden oynatılsın mı?";
    replay_says: "{} messages go back to the queue, behind fresh calls, and leave the shelf. What is wrong still makes dead letters of them again; nothing is stored twice.", "{} mesaj, yeni görüşmelerin arkasına kuyruğa döner ve raftan çıkar. Hâlâ yanlış olan varsa yeniden ölü mektup olur; hiçbir şey iki kez depolanmaz.";
    replay_n: "Replay {}", "{} mesajı yeniden oynat";
    drop_title: "Drop for good?", "Kalıcı olarak bırakılsın mı?";
    drop_says: "{} messages leave the shelf for good. Their calls will not be imported, unless a nightly comparison or a backfill finds them again.", "{} mesaj raftan kalıcı olarak çıkar. Gece karşılaştırması veya geri yükleme yeniden bulmadıkça görüşmeleri içeri alınmaz.";
    drop_n: "Drop {} for good", "{} mesajı kalıcı olarak bırak";
    leave_as_is: "Leave it", "Olduğu gibi kalsın";
    replayed: "{} are back on the queue.", "{} mesaj kuyruğa döndü.";
    dropped: "{} are dropped.", "{} mesaj bırakıldı.";
    back_to_letters: "Back to the dead letters", "Ölü mektuplara dön";

    // Completeness.
    completeness_says: "By the UTC day on which calls ended, counted in the catalog. What NICE lists and we do not have is found by the nightly comparison below.", "Görüşmelerin bittiği UTC gününe göre, katalogda sayılır. NICE'ın listeleyip bizde olmayanları aşağıdaki gece karşılaştırması bulur.";
    weekdays: "Mon Tue Wed Thu Fri Sat Sun", "Pzt Sal Çar Per Cum Cmt Paz";
    dead_short: "dead", "ölü";
    in_flight_short: "on their way", "yolda";
    incomplete_short: "incomplete", "eksik";
    nightly_runs: "Nightly comparisons", "Gece karşılaştırmaları";
    no_runs: "None has run yet.", "Henüz çalışan olmadı.";
    range: "Range", "Aralık";
    listed: "Listed", "Listelenen";
    missing: "Missing", "Eksik";
    replayed_count: "Replayed", "Yeniden oynatılan";
    exceptions: "Exceptions", "İstisnalar";
    no_exceptions: "None: every call of this day that we know is ready.", "Yok: bu günün bildiğimiz her görüşmesi hazır.";
    against_nice: "Against NICE's list", "NICE'ın listesiyle karşılaştırma";
    report_says: "NICE is asked for its list of the day, within the quota. That takes a moment.", "NICE'tan günün listesi, kota içinde istenir. Bu biraz sürer.";
    ask_nice: "Ask NICE", "NICE'a sor";
    n_missing: "{} calls are missing. The next nightly comparison replays them; a backfill of the day does it now.", "{} görüşme eksik. Sonraki gece karşılaştırması yeniden oynatır; günün geri yüklemesi bunu hemen yapar.";
    nothing_missing: "Nothing is missing.", "Eksik yok.";
    ended: "Ended", "Biten";
    excluded: "Excluded", "Kapsam dışı";
    not_looked_for: "Not looked for yet", "Henüz aranmadı";
    signed_days: "Signed days", "İmzalı günler";
    signed_days_says: "Each signed file holds the hash of the file before, so that nothing can be taken out or changed later. Keep the newest hash where nobody of this machine can change it.", "Her imzalı dosya bir önceki dosyanın özetini taşır; sonradan hiçbir şey çıkarılamaz veya değiştirilemez. En yeni özeti, bu makinedeki kimsenin değiştiremeyeceği bir yerde saklayın.";
    signed_days_off: "No day is signed here: [proof] dir is not set.", "Burada hiçbir gün imzalanmıyor: [proof] dir verilmemiş.";
    no_signed_days: "No day of this month is signed.", "Bu ayın imzalı günü yok.";
    chain_whole: "The chain holds: {} signed days, from {} to {}.", "Zincir sağlam: {} imzalı gün, {} ile {} arası.";
    chain_broken: "The chain of signed days is broken at {}.", "İmzalı günlerin zinciri {} dosyasında kopuk.";
    chain_remedy: "Keep the folder as it is, and compare this file and the one before with a copy that nobody here can change. Put the true files back; nothing is signed until the chain holds again. Check the folder with the command below; name each public key that auditors were given.", "Klasörü olduğu gibi saklayın; bu dosyayı ve bir öncekini, buradaki kimsenin değiştiremeyeceği bir kopyayla karşılaştırın. Gerçek dosyaları geri koyun; zincir düzelene kadar hiçbir gün imzalanmaz. Klasörü aşağıdaki komutla denetleyin; denetçilere verilen her açık anahtarı belirtin.";
    key_changed: "Signed with another key from {} on; compare it with the public key that you gave to auditors:", "{} gününden beri başka bir anahtarla imzalı; denetçilere verdiğiniz açık anahtarla karşılaştırın:";
    key_not_ours: "The newest day is signed with another key than the one of [proof] key here, which is:", "En yeni gün, buradaki [proof] key anahtarından başka bir anahtarla imzalı; buradaki:";
    newest_hash: "Hash of the newest file", "En yeni dosyanın özeti";
    chain_gap: "No file: {}", "Dosyası yok: {}";
    day: "Day", "Gün";
    hash: "Hash", "Özet";
    previous_hash: "Previous hash", "Önceki özet";
    first_file: "none: the first file", "yok: ilk dosya";
    signed_at: "Signed", "İmzalandı";
    key_id: "Signed with the key", "İmzalayan anahtar";
    link: "Link", "Bağ";
    link_holds: "holds", "sağlam";
    link_broken: "broken", "kopuk";
    file_wrong: "the file is wrong", "dosya yanlış";
    day_signed: "signed", "imzalı";

    // Backfills.
    new_backfill: "A new backfill", "Yeni geri yükleme";
    backfill_says: "Imports the calls that began on these days. The plan says first what there is, what it costs and how long it takes; it imports nothing.", "Bu günlerde başlayan görüşmeleri içeri alır. Plan önce ne olduğunu, neye mal olacağını ve ne kadar süreceğini söyler; hiçbir şey içeri almaz.";
    members_now: "by today's members of the group", "grubun bugünkü üyelerine göre";
    members_then: "by the members of that time", "o zamanki üyelere göre";
    plan: "Plan only", "Yalnızca planla";
    plan_and_begin: "Plan and begin", "Planla ve başlat";
    no_backfills: "There was none yet.", "Henüz hiç olmadı.";
    backfill_n: "Backfill {}", "Geri yükleme {}";
    is_listed: "NICE's list of the range is read.", "Aralığın NICE listesi okunuyor.";
    plan_found: "{} calls: {} are there or need no import, {} are missing.", "{} görüşme: {} zaten var veya gerekmiyor, {} eksik.";
    imported: "{} of {} imported", "{} / {} içeri alındı";
    about_imported: "about {} of {} imported", "yaklaşık {} / {} içeri alındı";
    calls_per_minute: "{} a minute", "dakikada {}";
    done_in: "done in {} to {}", "{} ile {} arasında biter";
    costs: "Costs {} recording requests and {} ACD requests, about {} at the present quota.", "{} kayıt isteği ve {} ACD isteği; bugünkü kotayla yaklaşık {}.";
    run_planning: "being planned", "planlanıyor";
    run_planned: "planned, not begun", "planlandı, başlamadı";
    run_running: "running", "çalışıyor";
    run_paused: "paused", "duraklatıldı";
    run_cancelled: "cancelled", "iptal edildi";
    run_done: "done", "bitti";
    run_failed: "failed", "başarısız";
    run_doubtful: "done, with doubts", "bitti, şüpheli";
    pause: "Pause", "Duraklat";
    resume: "Resume", "Sürdür";
    cancel: "Cancel", "İptal et";

    // Quota.
    quota_says: "What was asked of NICE in the present window. Live calls go first; the limit falls when NICE refuses, and rises again by itself.", "Şu anki pencerede NICE'a sorulanlar. Canlı görüşmeler önce gelir; NICE reddedince sınır düşer ve kendiliğinden yükselir.";
    no_tenant: "This process serves every tenant, and its settings name none.", "Bu süreç bütün kiracılara hizmet eder; ayarları hiçbirini anmıyor.";
    full_pace: "Full pace", "Tam hız";
    closed: "Closed", "Kapalı";
    used_in_window: "Used in the window", "Pencerede kullanılan";
    available_now: "May leave now", "Şimdi gönderilebilir";
    limit_of_settings: "Limit of the settings", "Ayarlardaki sınır";
    refusals: "Refusals of NICE", "NICE'ın retleri";
    for_so_long: "for {} more", "{} daha";
    in_so_long: "in {}", "{} sonra";
    why: "Why", "Neden";
    class_live: "live", "canlı";
    class_retry: "later looks", "sonraki bakışlar";
    class_backfill: "backfill", "geri yükleme";
    class_reconciliation: "comparison", "karşılaştırma";

    // Settings and audit.
    tenants: "Tenants", "Kiracılar";
    name: "Name", "Ad";
    active: "active", "etkin";
    inactive: "inactive", "etkin değil";
    key: "Key", "Anahtar";
    value: "Value", "Değer";
    origin: "Origin", "Kaynak";
    not_set: "not set", "verilmemiş";
    origin_default: "default", "varsayılan";
    origin_file: "file", "dosya";
    origin_environment: "environment", "ortam";
    origin_secret_file: "secret file", "gizli dosya";
    audit_says: "Who did what by page and API. It is written before it is done.", "Sayfa ve API ile kimin ne yaptığı. Yapılmadan önce yazılır.";
    no_acts: "Nobody has done anything yet.", "Henüz kimse bir şey yapmadı.";
    who: "Who", "Kim";
    act: "Act", "İşlem";
    subject: "Subject", "Konu";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_take_the_same_values() {
        for (name, english, turkish) in ALL {
            assert!(!english.is_empty() && !turkish.is_empty(), "{name}");
            assert_eq!(english.matches("{}").count(), turkish.matches("{}").count(), "{name}");
        }
    }
}

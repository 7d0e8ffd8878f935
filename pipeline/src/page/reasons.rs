//! Why something is as it is, in the reader's language. What stages and commands say is English: on the Turkish page a
//! sentence for its kind stands before it, where the kind is known, and the text itself is marked as English.

use maud::{Markup, html};

use super::texts::Language;
use super::visit::Guest;

/// Why a group cannot be shown.
pub(super) const GONE: &str = "this group is not listed: its letters were replayed or dropped, or are not among the newest \
                               20000, or not in the 1000 largest groups";

/// A piece of a reason by which its kind is known, and what the kind is in Turkish. The first that fits is said.
const KINDS: [(&str, &str); 54] = [
    (
        "this group is not listed",
        "Bu grup listede yok: mektupları yeniden oynatıldı veya bırakıldı, ya da en yeni 20000 mektubun veya en büyük 1000 \
         grubun dışında.",
    ),
    ("nothing is known of conversation", "Bu görüşme hakkında hiçbir şey bilinmiyor."),
    ("there is no dead letter", "Böyle bir ölü mektup yok."),
    ("there is no backfill", "Böyle bir geri yükleme yok."),
    ("leaves the allowed hosts", "Kaydın bağlantısı, izin verilen sunucuların dışına çıkıyor."),
    ("redirects off the allowed hosts", "Kaydın sunucusu, izin verilen sunucuların dışına yönlendiriyor."),
    ("the media host leads to a", "Kaydın sunucusu, izin verilmeyen bir adrese çıkıyor."),
    ("the recording link", "Kaydın bağlantısı kurallara uymuyor."),
    ("the link of the recording has expired", "Kaydın bağlantısının süresi doldu."),
    ("NICE did not know the contact until the deadline", "NICE, süre dolana kadar bu görüşmeyi tanımadı."),
    ("the group was not read since the call ended", "Görüşme bittiğinden beri grup okunmadı."),
    ("gave none of them until the deadline", "NICE, adını verdiği kayıtları süre dolana kadar vermedi."),
    (
        "none can be told to be of this leg",
        "Görüşmenin kayıtları var, ama hangisinin bu bölüme ait olduğu anlaşılamıyor.",
    ),
    ("no segment of this leg is listed yet", "NICE, bu bölümün kayıtlarını henüz listelemiyor."),
    ("more segments than any real leg", "NICE, bu bölüm için olamayacak kadar çok kayıt parçası bildiriyor."),
    ("at the deadline ", "Süre dolduğunda NICE'taki bilgi hâlâ eksikti."),
    ("unknown tenant", "Bu kiracının NICE ayarları bilinmiyor."),
    ("the tenant's settings", "Kiracının ayarları okunamıyor veya kullanılamıyor."),
    ("delivered too often without being settled", "Mesaj, hiç tamamlanmadan çok kez teslim edildi."),
    (" panicked", "Bu görüşme işlenirken bir aşama çöktü; hata programdadır."),
    ("malformed message", "Kuyruktaki mesaj okunamıyor."),
    ("unknown message schema", "Kuyruktaki mesaj daha yeni bir sürümün; okunamıyor."),
    ("integration type is not", "Kuyruktaki mesaj başka bir entegrasyonun."),
    ("gave up after ", "Birçok denemeden sonra vazgeçildi."),
    ("the recording is not processed yet", "NICE kaydı henüz işlemedi."),
    ("no link yet", "NICE, kaydın bağlantısını henüz vermedi."),
    ("NICE does not know the contact yet", "NICE bu görüşmeyi henüz tanımıyor."),
    ("of the contact is not final yet", "NICE'taki görüşme bilgisi henüz kesin değil."),
    ("what NICE lists of the call is no voice", "NICE'ın bu görüşme için listelediği ses değil."),
    ("dead letter replayed", "Ölü mektup kuyruğa geri döndü."),
    ("back at full pace", "NICE istekleri reddetti; hız düşürüldü, kendiliğinden yükselir."),
    ("full pace", "Tam hız."),
    ("the group's reading is held", "Grubun okuması bekletiliyor; temsilciler olduğu gibi kalır."),
    ("NICE announced ", "NICE'ın bildirdiği satır sayısı ile verdiği satırlar tutmuyor."),
    ("NICE gave the same rows again", "NICE, sonraki satırlar yerine aynı satırları yeniden verdi."),
    ("rows went on moving while", "NICE'ın satırları okunurken yer değiştirdi."),
    ("what NICE gave cannot be read", "NICE'ın verdiği okunamıyor."),
    ("NICE cannot be reached", "NICE'a ulaşılamıyor."),
    ("NICE did not answer in time", "NICE zamanında yanıt vermedi."),
    ("NICE refuses a fresh token", "NICE yeni bir jetonu bile reddediyor."),
    ("NICE answered ", "NICE beklenmeyen bir yanıt verdi."),
    ("the database ", "Veritabanı istenileni yapmadı."),
    ("the broker at ", "Mesaj aracısı istenileni yapmadı."),
    ("recording store: ", "Kayıt deposu istenileni yapmadı."),
    ("the file before it is not there, or was changed", "Bir önceki dosya yok veya değiştirilmiş."),
    ("it says that it is the first, and is not", "İlk dosya olduğunu söylüyor, ama değil."),
    ("it is signed with another key", "Başka bir anahtarla imzalanmış."),
    ("is missing before it", "Öncesinde bir günün dosyası eksik."),
    ("its name says another day", "Dosyanın adı başka bir günü söylüyor."),
    ("it holds no signed day", "Klasörde imzalı gün yok."),
    ("the balance does not add up", "Günün dengesi tutmuyor."),
    ("the signature is not that of its content", "İmza yanlış: dosya değiştirilmiş."),
    ("it is not in the form in which it was signed", "Dosya, imzalandığı biçimde değil: değiştirilmiş."),
    ("rate budget: ", "Kota defteri yanıt vermedi."),
];

/// A reason for the reader.
pub(super) fn reason(guest: &Guest, text: &str) -> Markup {
    in_language(guest.language, text)
}

fn in_language(language: Language, text: &str) -> Markup {
    let kind = KINDS.iter().find(|(piece, _)| text.contains(piece)).map(|(_, turkish)| *turkish);
    html! {
        @match (language, kind) {
            (Language::English, _) => (text),
            (Language::Turkish, Some(kind)) => { (kind) " " span.quiet lang="en" { "(" (text) ")" } }
            (Language::Turkish, None) => span lang="en" { (text) },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_known_reason_has_a_turkish_sentence_and_keeps_its_text() {
        let text = "the media host a.example redirects off the allowed hosts: https to b.example, port 443";
        assert_eq!(in_language(Language::English, text).into_string(), text);
        let turkish = in_language(Language::Turkish, text).into_string();
        assert!(turkish.starts_with("Kaydın sunucusu") && turkish.contains(r#"lang="en""#), "{turkish}");
        assert!(turkish.contains(text), "{turkish}");
        assert_eq!(in_language(Language::Turkish, "else").into_string(), r#"<span lang="en">else</span>"#);
    }

    #[test]
    fn a_lowered_pace_is_not_called_full() {
        let of = |text| in_language(Language::Turkish, text).into_string();
        assert!(
            of("NICE refused 3 requests at 10:42, back at full pace in 4 min").starts_with("NICE istekleri reddetti")
        );
        assert!(of("full pace").starts_with("Tam hız."));
    }

    #[test]
    fn what_is_said_of_a_group_that_is_not_listed_names_the_bounds() {
        let bounds = [catalog::MOST_GROUPED, crate::operations::dead_letters::MOST_GROUPS];
        for language in [Language::English, Language::Turkish] {
            let said = in_language(language, GONE).into_string();
            assert!(bounds.iter().all(|bound| said.contains(&bound.to_string())), "{said}");
        }
    }

    /// Everything that is written in the product's own source.
    fn source(dir: &Path, all: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                None if path.is_dir() => source(&path, all),
                Some(kind) if kind == "rs" && !path.ends_with("page/reasons.rs") => {
                    all.push_str(&std::fs::read_to_string(&path).unwrap());
                }
                _ => {}
            }
        }
    }

    #[test]
    fn each_kind_is_of_a_reason_that_is_still_made() {
        let (root, mut all) = (Path::new(env!("CARGO_MANIFEST_DIR")), GONE.to_owned());
        source(&root.join("src"), &mut all);
        source(&root.join("../stages"), &mut all);
        let stale: Vec<_> = KINDS.iter().filter(|(piece, _)| !all.contains(piece)).collect();
        assert!(stale.is_empty(), "{stale:?}");
    }
}

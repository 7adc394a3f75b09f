"""Rules on single characters: wrong decoding, left-overs of web pages, invisible ones, widths, scripts.

Each takes a text and gives a text. The first thing each does is a cheap search over the whole text, so
that a rule with nothing to do costs next to nothing.
"""

import html
import re
from collections.abc import Callable
from functools import cache, partial
from html.entities import html5
from typing import Literal

from yanmo.core.commands import install_command
from yanmo.core.errors import ConfigError
from yanmo.text.clean.misread import as_chinese, escapes, hz
from yanmo.text.read.encodings import READ_AS_LATIN
from yanmo.text.read.html import BLOCKS, SILENT, VERBATIM

MISREAD = re.compile(f"[\xc0-\xff][{READ_AS_LATIN}]")
"""Bytes read as Latin-1 or Windows-1252: an accented letter, then what follows none."""
HEAD_CHARACTERS = 1000
"""Characters within which HZ or escapes begin, where most of a text is written so."""
GBK_MOJIBAKE = re.compile("[锛銆鈥鐨鏄涓浜鎴鍦鍙鍚鏂鏈閫紝槸狅]")
"""UTF-8 read as GBK: ， 。 “ 的 是 一 人 我… become one of these, which no Chinese text has often."""
MIN_GBK_MOJIBAKE = 2
"""So many of them in a line before it is looked at: hardly any line of Chinese is valid UTF-8 as GBK."""

INLINE = (
    "a|abbr|b|big|cite|code|del|em|font|i|iframe|img|input|ins|label|link|meta|rb|rp|ruby|s|small|span|strong|sub|sup|tt|u|"
    "script|style"
)
BREAKING = "|".join(sorted((BLOCKS | {"head", "noscript", "select"}) - {"td", "th"}))
TAG = re.compile(
    rf"<(?P<close>/?)(?:(?P<breaking>{BREAKING})|(?P<cell>td|th)|(?P<inline>{INLINE}))"
    r"(?P<more>\s[^<>]{0,500})?/?>",
    re.IGNORECASE,
)
UNSEEN = re.compile(rf"<({'|'.join(sorted(SILENT | VERBATIM))})(?=[\s/>])[^<>]{{0,500}}>", re.IGNORECASE)
CLOSED = re.compile(r"</([a-zA-Z])(?=[\s/>])")
"""Names of one letter that somewhere end."""
COMMENTS = re.compile(r"<!--(?:(?!<!--).){0,2000}?-->", re.DOTALL)
AMPERSANDS = re.compile(r"&(?:amp;|#0{0,4}38;|#x0{0,4}26;)+", re.IGNORECASE)
"""An ampersand, however often it was escaped."""
MAX_LAYERS = 9
"""Times that markup is taken out to see whether more appears; what is deeper is no left-over of a page."""
ENTITIES = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,7}|#\d{2,7}|#[xX][0-9A-Fa-f]{2,6});")

LINE_ENDS = "\x85\u2028\u2029"
ODD_SPACES = "\xa0\u1680\u2000-\u200a\u202f\u205f\u3164"
INVISIBLE = (
    "\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff0-\ufffc\ufffe\uffff\U000e0000-\U000e007f"
)
JOINERS = "\u200c\u200d"
ODD = re.compile(f"[{LINE_ENDS}{ODD_SPACES}{INVISIBLE}{JOINERS}]")
"""One of all these; most texts have none."""
A_LINE_END, AN_ODD_SPACE = re.compile(f"[{LINE_ENDS}]"), re.compile(f"[{ODD_SPACES}]")
UNSEEN_CHARACTER = re.compile(f"[{INVISIBLE}]")
JOINER = re.compile(f"(?<![\u0590-\u0dff\u2190-\u2bff\ufe0f\U0001f000-\U0001faff])[{JOINERS}]")
"""What joins emoji, and letters of Arabic and Indian scripts, where there are none."""
REPLACED = "\ufffd"
"""What could not be decoded: it stays, for it says that something is missing. ``quality`` counts it."""

WIDE_LETTERS = {code: code - 0xFEE0 for code in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B))}
WIDE_LETTERS |= {code: code - 0xFEE0 for code in range(0xFF41, 0xFF5B)}
HAS_WIDE_LETTER = re.compile("[０-９Ａ-Ｚａ-ｚ]")
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
QUOTES = {"“": "”", "‘": "’", "「": "」", "『": "』", "《": "》", "（": "）", "【": "】"}
"""Quotes and brackets of Chinese, with their partners."""
NARROW = re.compile(rf"(?<=[{HAN}”’」』》）])([,;:?!]|\.(?![.\w]))(?: (?=[{HAN}“‘「『《（]))?")
NARROW_BRACKETS = re.compile(rf"\((?=[^()\n]{{0,80}}[{HAN}])([^()\n]{{1,80}})\)")
TO_WIDE = {",": "，", ";": "；", ":": "：", "?": "？", "!": "！", ".": "。"}

TAIWANS_ZHE = re.compile(
    "[看聽听想坐站走拿帶带跟說说笑望抱握穿等沿隨随向對对朝接靠順顺憑凭活躺忙開开寫写唱跑哭叫指摸吃喝睡停掛挂擺摆點点盯瞪低抬懷怀"
    "領领牽牵閉闭張张提背陪守舉举住過过圍围繞绕含忍]著"
)
"""A verb and the 著 of Taiwan; 著書 and 名著 are everybody's."""
A_WORK = re.compile("(?<=[原土专论译遗拙])着")
"""What opencc takes for a 着: 原著, 土著…"""


def mojibake(text: str) -> str:
    r"""Repair what was decoded wrongly on its way here.

    UTF-8 read as Latin-1 is ftfy's work, with nothing else of it switched on: its other repairs would
    straighten “ ” and make ， half-width. UTF-8 read as GBK is turned back line by line, where all of it
    but the last character can be; where bytes were lost the line stays as it is. GBK and Big5 read as
    Latin-1, HZ and escapes typed out are read back where that gives Chinese (``misread.py``).

    >>> mojibake("ä½\xa0å¥½，世界")
    '你好，世界'
    >>> mojibake("鎴戠埍浣狅紝鎴戠殑涔︽槸鏂扮殑")
    '我爱你，我的书是新的'
    >>> mojibake("他说：“咖啡馆”——café……")
    '他说：“咖啡馆”——café……'
    """
    if MISREAD.search(text):
        text = as_chinese(text)
        text = _ftfy()(text) if MISREAD.search(text) else text
    # A text of ASCII alone may be HZ or escapes anywhere; any other begins with them, if it has them.
    head = text if text.isascii() else text[:HEAD_CHARACTERS]
    text = hz(text) if "~{" in head else text
    text = escapes(text) if "\\u" in head else text
    if GBK_MOJIBAKE.search(text):
        text = "\n".join(map(_as_utf_8, text.split("\n")))
    return text


def _as_utf_8(line: str) -> str:
    """A line of UTF-8 that was read as GBK, read right; any other as it is."""
    if len(GBK_MOJIBAKE.findall(line)) < MIN_GBK_MOJIBAKE:
        return line
    try:
        data = b"\x80".join(part.encode("gb18030") for part in line.split("€"))  # as Windows reads 0x80
        return data.decode("utf-8")
    except UnicodeEncodeError:
        return line
    except UnicodeDecodeError as error:  # the line's end took the last byte with it
        is_at_the_end = error.start >= len(data) - 3
        return data[: error.start].decode("utf-8") + REPLACED if is_at_the_end else line


@cache
def _ftfy() -> Callable[[str], str]:
    """ftfy's repair of encodings, and nothing else it does."""
    try:
        import ftfy
    except ImportError as error:
        raise ConfigError(
            "clean.mojibake needs ftfy",
            "the text has UTF-8 read as Latin-1",
            f"{install_command('clean')}, or clean.mojibake=false",
        ) from error
    only_encodings = ftfy.TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        replace_lossy_sequences=False,
        fix_c1_controls=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        fix_surrogates=False,
        remove_control_chars=False,
        normalization=None,
        explain=False,
    )
    return lambda text: str(ftfy.fix_text(text, only_encodings))


def markup(text: str, read_right: Callable[[str], str] = str) -> str:
    r"""Take out what is left of a web page: scripts, comments, the tags of HTML, character references.

    Only names that HTML has are tags: <斗破苍穹> and a<b stay. A tag of a paragraph, item or row ends a line.
    What was escaped, once or more often, is markup too; so a second time finds nothing. A text in which
    markup appears from under markup without end is made so on purpose, and stays as it is. ``read_right``
    repairs what references spell: `&#228;&#184;&#173;` is a 中 whose bytes somebody took for letters.

    >>> markup("萧炎&nbsp;道：&ldquo;好。&rdquo;<br/>走了。</p><!-- 广告位 --><b>他</b>")
    '萧炎\xa0道：“好。”\n走了。\n他'
    >>> markup("<td>姓名</td><td>张三</td>"), markup("一<p>二<p>三"), markup("<ruby>漢<rt>かん</rt></ruby>字")
    (' 姓名  张三 ', '一\n二\n三', '漢字')
    >>> markup("《<斗破苍穹>》 a<b，b>c &amp;"), markup("AT&T; 5 < 6")
    ('《<斗破苍穹>》 a<b，b>c &', 'AT&T; 5 < 6')
    >>> markup("&amp;ldquo;好&amp;amp;rdquo;&lt;br/&gt;走"), markup("AT&amp;amp;T &notin; &notit;")
    ('“好”\n走', 'AT&T ∉ &notit;')
    """
    before, after = text, _without_a_layer(text, read_right)
    for _ in range(MAX_LAYERS):
        if after == before:
            return after
        before, after = after, _without_a_layer(after, read_right)
    return text


def _without_a_layer(text: str, read_right: Callable[[str], str]) -> str:
    """A text without the markup that is plain to see."""
    if "<" in text:
        text = _without_unseen(COMMENTS.sub("", text) if "<!--" in text else text)
        text = TAG.sub(partial(_of_tag, closed={name.lower() for name in CLOSED.findall(text)}), text)
    if "&" not in text:
        return text
    resolved = ENTITIES.sub(_character, AMPERSANDS.sub("&", text))
    return read_right(resolved) if resolved != text else text


def _without_unseen(text: str) -> str:
    """A text without scripts, styles and what else holds no text, where they are closed."""
    parts, at = [], 0
    lower = text.lower() if UNSEEN.search(text) else ""
    never_closed: set[str] = set()
    for opening in UNSEEN.finditer(text) if lower else ():
        name = opening[1].lower()
        if opening.start() < at or name in never_closed:
            continue
        end = lower.find(f"</{name}", opening.end())
        end = text.find(">", end) + 1 if end >= 0 else 0
        if not end:
            never_closed.add(name)  # looked for in vain once: again from each such tag would be quadratic
            continue
        parts.append(text[at : opening.start()])
        at = end
    return "".join([*parts, text[at:]])


def _of_tag(tag: re.Match[str], closed: set[str]) -> str:
    """What is left of a tag: a line end, a space between cells, nothing; itself if it only looks like one."""
    more = (tag["more"] or "").strip(" /\t\n")
    if more and "=" not in more:
        return tag[0]  # a <b and c> d
    name = tag["breaking"] or tag["cell"] or tag["inline"]
    is_alone = len(name) == 1 and not more and not tag["close"] and name.lower() not in closed
    if is_alone and name.lower() != "p":
        return tag[0]  # List<s>, but <p> is a paragraph wherever it stands
    if tag["cell"]:
        return " "
    return "\n" if tag["breaking"] else ""


def _character(match: re.Match[str]) -> str:
    """What a character reference stands for; itself if HTML knows no such name or it is a control."""
    found = html.unescape(match[0]) if match[0][1] == "#" else html5.get(match[0][1:], "")
    return found if found and (found >= " " or found in "\t\n") else match[0]


def controls(text: str) -> str:
    r"""Take out what cannot be seen; line ends and spaces of all kinds become ``\n`` and a plain space.

    Control characters, zero-width ones, marks of direction, byte-order marks, soft hyphens, tags. What
    joins an emoji stays.

    >>> controls("第一\u200b章\ufeff\x07\u2028\xa0他\u00ad说\x00 👩\u200d👧 ❤\ufe0f")
    '第一章\n 他说 👩\u200d👧 ❤️'
    """
    if not ODD.search(text):
        return text
    text = AN_ODD_SPACE.sub(" ", A_LINE_END.sub("\n", text))
    return UNSEEN_CHARACTER.sub("", JOINER.sub("", text))


def letters_width(text: str) -> str:
    """Full-width letters and digits become ASCII.

    >>> letters_width("ＱＱ１２３，第１２章　Ａ！")
    'QQ123，第12章　A！'
    """
    return text.translate(WIDE_LETTERS) if HAS_WIDE_LETTER.search(text) else text


def all_width(text: str) -> str:
    """Full-width letters become ASCII, and half-width punctuation behind hanzi full-width.

    A full stop does so at a word's end, brackets if a hanzi stands within. Numbers and English keep theirs.

    >>> all_width("他说:你好,世界!走吧. 对(真的)吗? 3.14, e.g. OK, 版本1.2.")
    '他说：你好，世界！走吧。对（真的）吗？ 3.14, e.g. OK, 版本1.2.'
    """
    text = NARROW.sub(lambda match: TO_WIDE[match[1]], letters_width(text))
    return NARROW_BRACKETS.sub(r"（\1）", text) if "(" in text else text


def script(text: str, to: Literal["simplified", "traditional"]) -> str:
    """Traditional characters become simplified ones, or back, by opencc's words and characters.

    Taiwan writes 看著 for 看着: where a text does, its 著 becomes 着, but for 名著 and its like.

    >>> script("乾隆皇帝的頭髮", "simplified"), script("头发发财", "traditional")
    ('乾隆皇帝的头发', '頭髮發財')
    >>> script("她看著一本名著", "simplified"), script("曹公著書，卷帙浩繁", "simplified")
    ('她看着一本名著', '曹公著书，卷帙浩繁')
    """
    if to == "traditional":
        return str(_opencc("s2t").convert(text))
    if not _is_of_taiwan(text):
        return str(_opencc("t2s").convert(text))
    return A_WORK.sub("著", str(_opencc("tw2s").convert(text)))


def _is_of_taiwan(text: str) -> bool:
    """Whether 著 stands in a text where others write 着, and more often than that."""
    return "著" in text and len(TAIWANS_ZHE.findall(text)) > text.count("着")


@cache
def _opencc(which: str):  # type: ignore[no-untyped-def]  # a class of the library
    try:
        import opencc
    except ImportError as error:
        raise ConfigError("clean.script needs opencc", "clean.script", install_command("clean")) from error
    return opencc.OpenCC(which)

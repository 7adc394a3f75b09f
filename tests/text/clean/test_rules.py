"""Every rule: what it changes, what it leaves, and that clean text stays as it is."""

import doctest
import html
import html.entities
import importlib
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.work import assert_linear, calls
from yanmo.settings.schema import CleanConfig
from yanmo.text.clean import ads, characters, filters, lines, privacy
from yanmo.text.clean.rules import NOTHING_LEFT, clean, rules_for

MODULES = ["ads", "characters", "filters", "lines", "misread", "privacy", "rules", "scanned"]
STORY = (
    "第一回　施禅机赵宅治病\n\n　　话说南宋自南渡以来，迁都临安。在朝有一位官员，姓李名茂春，娶妻王氏，夫妻好善。\n"
    "　　李大人为人最慈，带兵军令不严，因此罢官回籍，在家中乐善好施，修桥补路，扶危济困，冬施棉衣，夏施汤药。\n"
    "　　“你是何人？”他问道：“从哪里来？”那人笑而不答……只说了一句——“天知道！”\n"
)


@pytest.mark.parametrize("name", [*MODULES])
def test_the_examples_in_the_docstrings_are_true(name):
    found = doctest.testmod(importlib.import_module(f"yanmo.text.clean.{name}"))
    assert found.failed == 0
    assert found.attempted > 0 or name == "rules"


def test_every_rule_has_an_example():
    rules = rules_for(CleanConfig(drop_lines=("广告",), indentation="two", script="simplified", width="all"))
    assert len(rules) == 16
    for rule in rules:
        function = getattr(rule.apply, "func", rule.apply)
        assert ">>>" in function.__doc__, rule.name


def as_numbers(text: str) -> str:
    return "".join(f"&#{ord(c)};" for c in text)


def as_hexadecimal(text: str) -> str:
    return "".join(f"&#x{ord(c):X};" for c in text)


def as_names(text: str) -> str:
    return "".join(
        f"&{html.entities.codepoint2name[ord(c)]};" if ord(c) in html.entities.codepoint2name else c
        for c in text
    )


@pytest.mark.parametrize(
    "spell", [as_numbers, as_hexadecimal, as_names, lambda text: as_numbers(as_names(text))]
)
@pytest.mark.parametrize(
    ("charset", "around"),
    [("utf-8", "{}"), ("utf-8", "<p>{}</p><br>"), ("utf-8", "{} &ldquo;GPT&rdquo;"), ("gb18030", "{}")],
)
def test_what_references_spell_is_read_right_the_first_time(spell, charset, around):
    rules = rules_for(CleanConfig(quality=False))
    plain = "中国历史上有许多故事，今天来讲一个。"
    misread = plain.encode(charset).decode("latin-1")
    once = clean(around.format(spell(misread)), rules).text
    assert plain in once
    again = clean(once, rules)
    assert (again.text, again.changes) == (once, {})


@pytest.mark.parametrize(
    "text", ["caf&eacute;，他说", "&Auml;rger &uuml;ber 中文", "5&nbsp;&times;&nbsp;3 &Eacute;"]
)
def test_letters_with_accents_that_references_spell_stay(text):
    rules = rules_for(CleanConfig(quality=False))
    once = clean(text, rules).text
    assert once == html.unescape(text).replace("\xa0", " ")
    assert clean(once, rules).changes == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("他笑著說，靠著門，聽著雨。", "他笑着说，靠着门，听着雨。"),
        ("拿著原著，讀一本巨著，顯著不同。", "拿着原著，读一本巨著，显著不同。"),
        ("他等著，心裡著急，怕著涼。", "他等着，心里着急，怕着凉。"),
        ("看着河面，說起一本名著。", "看着河面，说起一本名著。"),
        ("司馬遷著書百三十篇，其功甚著。", "司马迁著书百三十篇，其功甚著。"),
    ],
)
def test_taiwans_zhe_becomes_the_mainlands_where_the_text_is_taiwans(text, found):
    assert characters.script(text, "simplified") == found


def test_clean_text_stays_as_it_is():
    cleaned = clean(STORY.rstrip(), rules_for(CleanConfig()))
    assert (cleaned.text, cleaned.dropped, cleaned.changes) == (STORY.rstrip(), "", {})


@pytest.mark.parametrize("name", CleanConfig.model_fields)
def test_every_switch_changes_the_rules(name):
    other = {
        "width": "keep",
        "indentation": "none",
        "script": "simplified",
        "drop_lines": ("x",),
        "languages": ("ja",),
    }.get(name, False)
    plain = [rule.name for rule in rules_for(CleanConfig())]
    switched = rules_for(CleanConfig(**{name: other}))
    if name == "languages":
        assert clean(STORY, switched).dropped == "in Chinese"
    else:
        assert [rule.name for rule in switched] != plain


@given(st.text(max_size=400))
def test_no_text_breaks_a_rule_and_cleaning_twice_changes_nothing_more(text):
    """But for mojibake, which takes off one layer: behind it another may come to light."""
    rules = rules_for(CleanConfig(width="all", indentation="two"))
    once = clean(text, rules)
    again = clean(once.text, rules)
    assert once.dropped or again.dropped or clean(again.text, rules).text == again.text
    rules = rules_for(CleanConfig(width="all", indentation="two", mojibake=False))
    once = clean(text, rules)
    if not once.dropped:
        again = clean(once.text, rules)
        assert (again.text, again.dropped) == (once.text, "")


FRAGMENTS = [
    "&", "amp;", "#38;", "#x26;", "lt;", "gt;", "quot;", "nbsp;", "#60;", "#62;", ";", "<", ">", "</", "/>", "b", "br", "p",
    "<b>", "</b>", "<script>", "</script>", "<rt>", "<!--", "-->", "他", "走了。", "\n", " ", "=", "&#9", "7;", "not", "copy;",
]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join))
def test_markup_taken_out_once_is_out(text):
    once = characters.markup(text)
    assert characters.markup(once) == once


@pytest.mark.parametrize("layers", [1, 2, 3, 7, 50])
def test_what_was_escaped_several_times_is_no_text(layers):
    page = "<p>“半夜”</p>“谁&nbsp;在”<br/>敲门<script>x()</script>？&copy; A&B"
    for _ in range(layers):
        page = html.escape(page)
    plain = "\n“半夜”\n“谁\xa0在”\n敲门？© A&B"
    assert characters.markup(page) == plain
    for old in ("&", "&#38;", "&#x26;", "&#0038;", "&AMP;"):
        assert characters.markup(page.replace("&amp;", f"{old}amp;").replace("&", "&amp;")) == plain


@pytest.mark.parametrize(
    "text", ["A&B", "AT&T; x", "&notit; &copyx;", "R&D &#7;", "&abcdefghij;", "若 a&lt b"]
)
def test_ampersands_that_are_no_references_stay(text):
    assert characters.markup(text) == text


@pytest.mark.parametrize(
    "unit", ["&amp;", "&#38;", "&amp;amp;", "&lt;b&gt;", "&#&#57;7;", "<<b>b>", "<object>", "<svg><script>"]
)
@pytest.mark.parametrize("nested", [False, True])
def test_layers_without_end_are_no_more_work_than_their_length(unit, nested):
    def hostile(length):
        count = length // len(unit)
        half = len(unit) // 2
        return "他" + (unit[:half] * count + unit[half:] * count if nested else unit * count) + "走"

    once = characters.markup(hostile(200_000))
    assert characters.markup(once) == once
    assert_linear(lambda length: calls(characters.markup, hostile(length)), 2000)


SPELLINGS = [
    "www.xiＡoshuo9.Ｎｅｔ", "wＷw。xiao shuo9.neｔ", "w w w/xiao shu o9.n e t", "ww　w　.　xia　oshu　o9.ne t", "ＷＷＷ．ＸＩＡＯＳＨＵＯ９．ＣＯＭ",
    "http://www.xiaoshuo9.com", "https://m.xiaoshuo9.net/book/1.html"
]  # fmt: skip
TAILS = ["", "t.xt小说天堂", "小`说`天.堂", "（／t／xt｜小／说天｜堂）", " 提供下载", "首发更新，请收藏"]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("tail", TAILS)
def test_a_site_is_found_however_it_is_spelled(spelling, tail):
    text = f"他走了。\n　　{spelling}{tail}\n　　她来了。"
    assert ads.ads(text) == "他走了。\n　　她来了。"


@pytest.mark.parametrize(
    "line",
    [
        "xiaoshuo9.com 提供下载",
        "作品仅供读者预览,请在下载24小时内删除，不得用作商业用途；请购买正版图书!",
        " ------章节内容开始-------",
        "更新时间:2007-11-16 7:55:51 本章字数:4804",
        "首页    |    原创书库    |    现代    |    言情    |    武侠",
        "后一页",
        "返回目录",
        "上一章 ← 章节目录 → 下一章",
        "请记住本站域名：墨香阁",
        "天才一秒记住本站地址",
        "手机用户请浏览阅读，更优质的体验。",
        "本书来自八零电子书论坛，转载请保留",
        "求月票，求推荐票！",
        "本站长期招收作品更新管理员，欢迎报名",
    ],
)
def test_banners_go(line):
    assert ads.ads(f"他走了。\n{line}\n她来了。") == "他走了。\n她来了。"


@pytest.mark.parametrize(
    "line",
    [
        "“请记住，本站在三里之外。”老人说。",
        "他翻开书的目录，看了下一章的名字，又合上了。",
        "车站的手机铺子已经关了门，他只好走回去。",
        "她收藏了许多邮票，每一张都有来历。",
        "“求你，把票给我罢！”孩子哭了起来。",
        "王（Widow Wang）说：How came that widow in?",
        "他在 www.gov.cn 上读到通告，第二天就去了乡里，见到了那位多年不见的老朋友。",
        "最新章程一共七章，章节之间并无次序。",
        "页码从一到一百，他一页一页地翻。",
        "DNA和RNA的com比较",
        "他砸碎了父亲收藏的花瓶。",
        "齐白石求人收藏他的画",
        "求求你，把我收藏的邮票还给我！",
        "他请求报社停止订阅",
        "爷爷把一辈子投进了邮票收藏。",
        "学生坐公交，求一张月票，母亲给了他五块钱。",
        "请记住我的地址，别忘了写信。",
        "请记住这个地址：上海市南京路100号，我在那里等你。",
        "本站仅供旅客上下车，请勿停留。",
        "列车到了，本站所有旅客请下车。",
        "手机用户请到营业厅办理业务，否则将停机。",
        "他说手机请到柜台修。",
        "如果觉得冷，请记得收藏好你的大衣。",
        "本文取自《论语》，作者整理了三十年。",
        "本文由三部分组成，第一部分讨论网络文学的兴起。",
        "本书由商务印书馆网罗天下名家编写而成。",
        "本小说由真实事件改编，网民反应热烈。",
        "本书由人民文学出版社首发，受到网友欢迎。",
        "天才一秒记住了他的名字",
        "推荐本书 他把目录递给我。",
        "HTTP status codes",
        "HTTP status 404 Not Found",
        "# HTTP welcome page",
        "TCP/IP, HTTP, SMTP, focus",
        "use https, not us",
        "WWW browser home",
        "if x.is.top:",
        "from yanmo.com import x",
        "file.name.me",
        "print(df.top)",
        "He works at Booking.com.",
        "Visit us at www.example.com for more.",
        "email me at john@gmail.com",
        "他说：“www.baidu.com是最好的网站。”",
        "他在淘宝网www.taobao.com上买了一部最新手机，非常满意。",
        "今天我访问了https://www.zhihu.com/question/123，阅读了一个很有意思的回答，推荐大家看看。",
        "下载地址：https://github.com/foo/bar",
    ],
)
def test_prose_stays(line):
    assert ads.ads(f"他走了。\n{line}\n她来了。") == f"他走了。\n{line}\n她来了。"


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("此乃天意。”www.ｂｏｏk8。ｃom1937年7月7日，卢沟桥。", "此乃天意。”1937年7月7日，卢沟桥。"),
        ("见到了那位老朋友。www.xiaoshuo9.com。Tom说，你好。", "见到了那位老朋友。。Tom说，你好。"),
        ("他想www.ｂook8.ｃom，A、B、C三人都来了，一同坐下喝茶。", "他想，A、B、C三人都来了，一同坐下喝茶。"),
    ],
)
def test_an_address_ends_where_the_prose_goes_on(line, left):
    assert ads.ads(line) == left


def test_named_lines_go_in_every_spelling():
    config = CleanConfig(drop_lines=("八零电子书",))
    text = f"{STORY}【八０电子书】\n※八零★电子书※\n"
    assert "★" not in clean(text, rules_for(config)).text
    assert "八０" in clean(text, rules_for(CleanConfig(width="keep"))).text


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
@pytest.mark.parametrize("text", ["我爱你，中国！", "话说天下大势，分久必合，合久必分。"])
def test_utf_8_read_as_latin_is_repaired(text, encoding):
    garbled = text.encode().decode(encoding, "surrogateescape")
    if any("\udc80" <= c <= "\udcff" for c in garbled):
        garbled = text.encode().decode("latin-1")
    assert characters.mojibake(f"前文。{garbled}") == f"前文。{text}"


def test_utf_8_read_as_gbk_is_repaired_but_for_a_lost_byte_at_the_end():
    text = "我们家的人都在书房里看新书，是我们的"
    garbled = text.encode().decode("gb18030")
    assert characters.mojibake(f"第一行\n{garbled}\n第三行") == f"第一行\n{text}\n第三行"
    cut = (text + "书").encode()[:-1].decode("gb18030", "ignore")
    assert characters.mojibake(cut).startswith(text)


def test_rare_characters_are_no_mojibake():
    text = "锛（bēn）是化学元素锛的旧名；銆、鐨二字见于《康熙字典》，人名里有鏄字。"
    assert characters.mojibake(text) == text


def test_lost_characters_stay_and_are_judged():
    assert characters.controls("他\ufffd说") == "他\ufffd说"


def test_traditional_text_becomes_simplified_only_when_asked():
    text = "乾隆皇帝的頭髮"
    assert clean(text, rules_for(CleanConfig())).text == text
    assert clean(text, rules_for(CleanConfig(script="simplified"))).text == "乾隆皇帝的头发"


PROSE = "在我的后园，可以看见墙外有两株树，一株是枣树，还有一株也是枣树。这上面的夜的天空，奇怪而高，我生平没有见过这样的奇怪而高的天空。他仿佛要离开人间而去，使人们仰面不再看见。"


@pytest.mark.parametrize("width", [20, 28, 38, 50])
@pytest.mark.parametrize("indent", ["　　", "    "])
def test_lines_cut_at_any_width_are_joined(width, indent):
    paragraphs = [indent + PROSE[: 40 + 7 * number % 45] for number in range(40)]
    cut = "\n".join(p[i : i + width] for p in paragraphs for i in range(0, len(p), width))
    joined = lines.unwrap(cut)
    assert sum(line in paragraphs for line in joined.split("\n")) >= 0.9 * len(paragraphs)


@pytest.mark.parametrize(
    "text",
    [
        "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。\n" * 30,
        "“你来了。”\n“我来了。”\n他看了看我，没有说话，只是点了点头。\n" * 30,
        "".join(f"{PROSE[: 30 + 11 * number % 50]}。\n" for number in range(60)),
        "".join(f"　　第{number}条　凡{PROSE[:22]}。\n" for number in range(60)),
    ],
)
def test_lines_that_end_where_they_should_stay(text):
    assert lines.unwrap(text) == text


@pytest.mark.parametrize(
    "line",
    [
        "张三：{}",
        "- {}",
        "12. {}",
        "| {} | 一 |",
        "2024-01-01 12:00:00 INFO {}",
        "{}，{}",
        "1. 答案（  ） A. {}",
    ],
)
def test_lists_logs_and_tables_are_not_joined(line):
    text = "\n".join(
        line.format(*[PROSE[n : n + 24].replace("，", "").replace("。", "")] * 2) for n in range(40)
    )
    assert lines.unwrap(text) == text


@pytest.mark.parametrize(
    "text", ["若a<p 且 q>0 则", "x<i && y>j", "if a <b and c> d", "List<s>", "《<斗破>》"]
)
def test_comparisons_are_no_tags(text):
    assert characters.markup(text) == text


@pytest.mark.parametrize("text", ["1️⃣ ©️ ▶️", "می\u200cخواهم", "क्\u200dष", "👩\u200d👧"])
def test_what_joins_letters_and_emoji_stays(text):
    assert characters.controls(text) == text


HOSTILE = [
    "<script>",
    "<style >",
    "<script>a</script\n",
    "www.",
    "http://",
    "(",
    "&",
    "1-",
    "“",
    "　",
    " 　",
    "我" * 30 + "\n",
    "\n",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_is_no_more_work_than_its_length(unit):
    rules = rules_for(CleanConfig(width="all", quality=False))

    def hostile(length):
        return "他" + unit * (length // len(unit)) + "她走了。 \n走"

    assert clean(hostile(300_000), rules).text.endswith("她走了。\n走")
    assert_linear(lambda length: calls(clean, hostile(length), rules), 2000)


@given(st.integers(110000, 659000), st.dates(date(1900, 1, 1), date(2026, 1, 1)), st.integers(0, 999))
def test_of_the_eleven_check_digits_one_makes_an_identity_number(region, born, order):
    digits = f"{region}{born:%Y%m%d}{order:03d}"
    texts = [privacy.privacy(f"号{digits}{last}。") for last in "0123456789X"]
    assert [text for text in texts if "[" in text] == ["号[身份证号]。"]
    wrong = f"{region}{born:%Y}1332{order:03d}"
    assert not any("[" in privacy.privacy(f"号{wrong}{last}。") for last in "0123456789X")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("“" * 500, "mostly symbols"),
        ("".join(f"{n * n * 7919}\n" for n in range(400, 440)), "mostly digits"),
        ("今天天气很好。" * 60, "repeats itself"),
        (STORY.encode().decode("latin-1").replace("\x85", "") * 2, ""),
        ("Привет, как дела? Всё хорошо, спасибо!", "in Russian or alike"),
        ("안녕하세요 저는 한국 사람입니다 만나서 반갑습니다 오늘 날씨가 좋네요", "in Korean"),
        ("吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。", "in Japanese"),
        ("هذا نص باللغة العربية وليس بالصينية على الإطلاق", "in another language"),
        ("To be, or not to be, that is the question: whether 'tis nobler in the mind", ""),
        ("春眠不觉晓", ""),
        ("往内山书店买《思想家としてのマルクス》一本，泉二元。得侍桁信片。", ""),
        ("www.xiaoshuo9.com", NOTHING_LEFT),
        (" \n\t", "empty"),
    ],
)
def test_what_is_dropped_says_why(text, reason):
    assert clean(text, rules_for(CleanConfig())).dropped == reason


def test_a_wrongly_decoded_big5_novel_is_garbled():
    text = ("遊戲人間小謫仙，幾回滄海變桑田，" * 10).encode("big5").decode("gb18030", "ignore")
    with pytest.raises(filters.Dropped, match="garbled"):
        filters.quality(text)

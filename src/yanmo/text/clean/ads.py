"""Rules against advertisement: site names however they are spelled, banners of book sites, named lines.

Only whole lines go, and from prose the address alone where its spelling shows that it was put there. A
line is judged by its letters without what stands between them: ``wＷ w.xia oshuotxＴ.ｎeｔ`` is
``wwwxiaoshuotxtnet``.
"""

import re
import unicodedata

LATIN = re.compile("[A-Za-zＡ-Ｚａ-ｚ]")
HANZI = re.compile("[\u3400-\u9fff]")
ENDS = "com|net|org|cn|cc|info|tv|la|me|us|xyz|top|vip|biz|mobi"
SITE = re.compile(rf"(?:www|https?)[a-z0-9]{{2,40}}?(?:{ENDS})")
"""An address as its bare letters."""
OPEN_SITE = re.compile(rf"\b(?:[a-z0-9-]{{2,30}}\.){{1,4}}(?:{ENDS})(?![a-z0-9])")
"""An address as it should be written, even without www."""
SPELLED = "[A-Za-z0-9Ａ-Ｚａ-ｚ０-９]"
BETWEEN = r"[\s　.。·,，、/:：;；\\_＿|｜?？!！*＊\-—^＾~～'\"`]{0,3}"
ADDRESS = re.compile(
    rf"(?:{SPELLED}{{1,12}}(?:小说|小說|书|中文)网?)?"
    rf"[WＷwｗ]{BETWEEN}[WＷwｗ]{BETWEEN}[WＷwｗ](?:{BETWEEN}{SPELLED}){{4,40}}"
    "(?:首发|首發|小说网|文学网|最新章节|提供|更新)?"
)
"""An address within prose, with whatever was put between its letters and what is said of it."""
OBFUSCATED = re.compile(r"[Ａ-Ｚａ-ｚ]|[a-z] [a-z]|[。，、：；？！＿｜＊＾]|[a-z][A-Z]")

AD_WORDS = re.compile(
    "小说|txt|电子书|下载|阅读|网站|网址|书城|书网|论坛|首发|正版|章节|本站|域名|收藏|推荐|书友|免费|手机|最新|"
    "更新|书评|提供|欢迎|访问|登陆|登录|天堂|小說|電子書|下載|閱讀|網站|網址|書網|論壇|更新|歡迎|訪問"
)
MAX_OTHER_HANZI = 12
MAX_OTHER_LATIN = 24
"""A line with an address and no more letters than this beside it is nothing else; one with more hanzi
needs two ad words."""

BANNERS = re.compile(
    r"""
      作品仅供读者预览 | 下载后?\s?24\s?小时内删除 | 不得用作商业用途
    | ^[-=*—\s]*(?:章节|正文)内容(?:开始|结束)[-=*—\s]*$
    | ^\W*更新时间\s?[:：].{0,40}(?:本章)?字数\s?[:：]\s?\d+ | ^\W*本章字数\s?[:：]\s?\d+\W*$
    | (?:请|請)(?:记住|記住|牢记).{0,12}(?:域名|网址|網址|本站|地址)
    | 天才一秒(?:记住|記住) | 一秒记住.{0,20}(?:网|阅读)
    | 手机(?:用户|版)?请(?:浏览|访问|登[录陆]|到).{0,30}
    | (?:最新|最快)(?:章节|更新).{0,20}(?:请到|尽在|首发|就上|请登)
    | (?:无弹窗|全文字|txt全集|TXT全集).{0,12}(?:小说|阅读|下载)
    | (?:小说|电子书|书籍).{0,4}(?:下载|阅读)(?:尽在|请到|就到|就上)
    | 本(?:书|电子书|小说|文)(?:来自|由|取自).{1,30}(?:网|论坛|书城|书库|电子书|整理|制作|上传|首发|下载)
    | ^您?下载的.{0,6}(?:电子书|小说)来自
    | (?:本站|本网站).{0,10}(?:长期|所有|郑重|不承担|仅供|招收|收录的)
    | (?:书友|读者)(?:群|们|大大).{0,12}(?:加入|号码|收藏|推荐票|月票)
    | (?:求|投|砸).{0,4}(?:月票|推荐票|收藏|订阅|打赏).{0,20}$
    | 如果您?(?:喜欢|觉得).{0,20}(?:请|记得).{0,6}(?:收藏|推荐给|分享|购买)
    | (?:加入书签|推荐本书|返回书页|返回目录|章节错误|点此举报|举报本章|TXT下载)\W
      .*(?:书签|目录|上一|下一|书页|举报|下载)
    """,
    re.VERBOSE,
)
BANNER_TRIGGERS = (
    *(
        "供读者",
        "商业用途",
        "内容",
        "字数",
        "记住",
        "記住",
        "牢记",
        "手机",
        "章节",
        "最新",
        "最快",
        "弹窗",
        "全集",
    ),
    *(
        "下载",
        "本书",
        "本文",
        "电子书",
        "本站",
        "本网站",
        "书友",
        "票",
        "收藏",
        "订阅",
        "打赏",
        "书签",
        "本小说",
        "小时内",
    ),
)
"""One of these stands in every banner: looking for a word is much faster than for a pattern."""
MAX_BANNER = 160
NAVIGATION = re.compile(
    "首页|首頁|目录|目錄|书库|書庫|论坛|論壇|排行|[上下前后後][一页頁章篇节節回]|书签|返回|回首|言情|武侠|科幻|玄幻|都市|登录|注册"
)
NAVIGATION_PARTS = re.compile(r"[\s　|｜/·\[\]【】()（）<>《》←→]+")
MIN_NAVIGATION_PARTS = 2
MAX_NAVIGATION_PART = 6


def ads(text: str) -> str:
    r"""Take out lines that advertise a site, the banners of book sites, and rows of links.

    >>> ads("他走了。\nwＷ w.xia oshuotxＴ.ｎeｔ［t.xt小，说［天堂｝\n她来了。")
    '他走了。\n她来了。'
    >>> ads("请记住本站域名：笔下文学\n　更新时间:2007-11-16 7:55:51 本章字数:4804\n上一章 | 目录 | 下一章")
    ''
    >>> ads("操曰：“吾知之矣。”www.ｂｏｏk8。ｃom遂起兵。")
    '操曰：“吾知之矣。”遂起兵。'
    >>> ads("一个渡船上偷16k小说wWw.16Ｋ.ｃn首发了张忠夷家的首饰盒，被济公捉来，取还原物，留下一粒晶球。")
    '一个渡船上偷了张忠夷家的首饰盒，被济公捉来，取还原物，留下一粒晶球。'
    >>> ads("她走了。www.xiaoshuo9.com")
    '她走了。'
    >>> ads("Widow! a pox o' that! How came that widow in?")
    "Widow! a pox o' that! How came that widow in?"
    >>> ads("他在 www.gov.cn 上读到通告，第二天就去了乡里，见到了那位多年不见的老朋友。")
    '他在 www.gov.cn 上读到通告，第二天就去了乡里，见到了那位多年不见的老朋友。'
    >>> ads("“目录”二字他写了又写。\n此时国王（king）来了，www是什么？")
    '“目录”二字他写了又写。\n此时国王（king）来了，www是什么？'
    """
    for is_ad_at in (_places_of_letters, _places_of_banners):
        text = _without_lines(text, is_ad_at(text))
    return text


def _without_lines(text: str, changes: list[tuple[int, int, str]]) -> str:
    """``text`` with each (start, end) of lines replaced; a line that becomes nothing goes with its end."""
    parts, at = [], 0
    for start, end, instead in changes:
        parts.append(text[at:start])
        parts.append(instead)
        at = min(end + 1, len(text)) if not instead else end
    parts.append(text[at:])
    joined = "".join(parts)
    return joined.removesuffix("\n") if changes and not text.endswith("\n") else joined


def _places_of_letters(text: str) -> list[tuple[int, int, str]]:
    """Lines with an address in their Latin letters, and what remains of each."""
    changes = []
    for start, end in _lines_with(text, LATIN):
        line = text[start:end]
        instead = _without_address(line)
        if instead != line:
            changes.append((start, end, instead))
    return changes


def _lines_with(text: str, sought: re.Pattern[str]) -> list[tuple[int, int]]:
    """(start, end) of each line in which ``sought`` is found."""
    lines = []
    match = sought.search(text)
    while match is not None:
        start = text.rfind("\n", 0, match.start()) + 1
        end = text.find("\n", match.end())
        end = len(text) if end < 0 else end
        lines.append((start, end))
        match = sought.search(text, end)
    return lines


def _without_address(line: str) -> str:
    """A line, or what is prose of it; nothing if it is all advertisement."""
    plain = unicodedata.normalize("NFKC", line).casefold()
    letters = re.sub("[^a-z0-9]", "", plain)
    address = SITE.search(letters) or OPEN_SITE.search(plain)
    if address is None or len(letters) - len(address[0]) > MAX_OTHER_LATIN + len(HANZI.findall(plain)):
        return line
    rest = ADDRESS.sub("", plain)
    hanzi, words = len(HANZI.findall(rest)), len(set(AD_WORDS.findall(rest)))
    if hanzi <= MAX_OTHER_HANZI and (hanzi == 0 or words or _is_address_first(line)):
        return ""
    if words >= 2 and (hanzi <= 4 * MAX_OTHER_HANZI or words >= 4):
        return ""
    return ADDRESS.sub(lambda match: "" if _was_put_there(match) else match[0], line)


def _was_put_there(address: re.Match[str]) -> bool:
    """Whether an address within prose is none of it: it is spelled oddly, or follows a sentence's end."""
    before = address.string[: address.start()].rstrip()[-1:]
    return OBFUSCATED.search(address[0]) is not None or before in set("。！？”」』…")


def _is_address_first(line: str) -> bool:
    match = LATIN.search(line)
    return match is not None and not HANZI.search(line, 0, match.start())


def _places_of_banners(text: str) -> list[tuple[int, int, str]]:
    """Lines that are banners or rows of links."""
    triggers = [word for word in BANNER_TRIGGERS if word in text]
    rows = [row for row in ("|", "｜", "页", "頁", "目录", "目錄") if row in text]
    if not triggers and not rows:
        return []
    sought = re.compile("|".join(map(re.escape, [*triggers, *rows])))
    found = _lines_with(text, sought)
    return [(start, end, "") for start, end in found if is_banner(text[start:end])]


def is_banner(line: str) -> bool:
    """Whether a line is a banner or a row of links."""
    line = line.strip()
    if len(line) > MAX_BANNER:
        return False
    if BANNERS.search(line) and not _is_speech(line):
        return True
    parts = [part for part in NAVIGATION_PARTS.split(line) if part]
    named = sum(1 for part in parts if NAVIGATION.search(part))
    return (
        len(parts) >= MIN_NAVIGATION_PARTS
        and max(map(len, parts)) <= MAX_NAVIGATION_PART
        and named >= max(2, len(parts) / 2)
    ) or SINGLE_LINKS.fullmatch(line) is not None


SINGLE_LINKS = re.compile("(?:[上下前后後]一[页頁章]|(?:返?回|返回)(?:目录|目錄|首页|首頁|书页)|加入书签)")


def _is_speech(line: str) -> bool:
    """Whether somebody says it in a story."""
    return bool(re.search('[“「『"].*[”」』"]', line)) and not re.search("本章字数|域名|网址", line)


def drop_lines(text: str, unwanted: frozenset[str]) -> str:
    r"""Take out lines whose letters are those of an unwanted one.

    >>> drop_lines("　　正文\n【八零电子书】\n他来了。", frozenset({letters("八零电子书")}))
    '　　正文\n他来了。'
    """
    kept = [line for line in text.split("\n") if not line.strip() or letters(line) not in unwanted]
    return "\n".join(kept)


def letters(line: str) -> str:
    """A line's letters, hanzi and digits, without width, case and what stands between."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", line).casefold())

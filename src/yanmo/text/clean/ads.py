"""Rules against advertisement: site names however they are spelled, banners of book sites, named lines.

Only whole lines go, and from prose the address alone where its spelling shows that it was put there. A
line is judged by its letters without what stands between them: ``wＷ w.xia oshuotxＴ.ｎeｔ`` is
``wwwxiaoshuotxtnet``.
"""

import re
import unicodedata

LATIN = re.compile("[A-Za-zＡ-Ｚａ-ｚ]")
HANZI = re.compile("[\u3400-\u9fff]")
ENDS = ("com", "net", "org", "cn", "cc", "info", "tv", "la", "us", "xyz", "top", "vip", "biz", "mobi")
SPELLED = "[A-Za-z0-9Ａ-Ｚａ-ｚ０-９]"
BETWEEN = r"[\s　.．。·,，、/／:：;；\\_＿|｜?？!！*＊=\-—^＾~～'\"`]{0,3}"


def _spelled(word: str) -> str:
    """A word with either width and case, and whatever was put between its letters."""
    return BETWEEN.join(f"[{c}{c.upper()}{chr(ord(c) + 0xFEE0)}{chr(ord(c.upper()) + 0xFEE0)}]" for c in word)


WWW = rf"(?<![A-Za-zＡ-Ｚａ-ｚ]){_spelled('www')}[\s　]{{0,2}}[.。．·,，、/:：;；?？!！*＊=\-][\s　]{{0,2}}"
HTTP = r"[hHｈＨ][tTｔＴ]{2}[pPｐＰ][sSｓＳ]?[\s　]{0,2}[:：][\s　]{0,2}[/／]{1,2}"
DOMAIN = rf"(?:{SPELLED}{BETWEEN}){{2,40}}?(?:{'|'.join(map(_spelled, ENDS))})"
ADDRESS = re.compile(
    rf"(?:{SPELLED}{{1,12}}(?:小说|小說|中文)网?)?"
    rf"(?:{HTTP}(?:{WWW})?|{WWW}){DOMAIN}(?:/[A-Za-z0-9_./?=&%#-]*)?"
    "(?:首发|首發|小说网|文学网|最新章节)?"
)
"""An address, with whatever was put between its letters, and what is said of it."""
OPEN_SITE = re.compile(rf"(?<![a-z0-9.@])(?:[a-z0-9-]{{2,30}}\.){{1,3}}(?:{'|'.join(ENDS)})(?![a-z0-9.])")
"""An address as it should be written, without www."""
OBFUSCATED = re.compile(
    r"[Ａ-Ｚａ-ｚ]|[A-Za-z][\s　]+[A-Za-z]|[。，、；？！＿｜＊＾]|：(?!/)|[a-z][A-Z]|www/"
)

BOOK_WORDS = re.compile(
    "小说|小說|txt|电子书|電子書|书城|书网|書網|书库|论坛|首发|正版|章节|本站|域名|网址|網址|书友|书评|天堂|相关书籍"
)
WORDS = re.compile(
    "下载|下載|阅读|閱讀|网站|網站|收藏|推荐|免费|手机|最新|更新|提供|欢迎|歡迎|访问|訪問|登陆|登录"
)
TWO_WORDS = re.compile(r"[a-z0-9][\s　]+[a-z0-9]")
SHORT_HANZI, LONG_HANZI = 12, 48
"""Hanzi beside an address: few need little to be an advertisement, many need more."""
MAX_LATIN_LETTERS = 24
"""Latin letters beside an address; a line with more is English, or code."""

BANNERS = re.compile(
    r"""
      作品仅供读者预览 | 下载后?\s?24\s?小时内删除 | 不得用作商业用途
    | ^[-=*—\s]*(?:章节|正文)内容(?:开始|结束)[-=*—\s]*$
    | ^\W*更新时间\s?[:：].{0,40}(?:本章)?字数\s?[:：]\s?\d+ | ^\W*本章字数\s?[:：]\s?\d+\W*$
    | (?:请|請)(?:记住|記住|牢记)(?:本站|本书|本书首发)?.{0,4}(?:域名|网址|網址)
    | 天才一秒(?:记住|記住)(?:本站|.{0,6}(?:地址|网址|网)) | 一秒记住.{0,8}(?:小说|阅读)网
    | 手机(?:用户|版)?请(?:浏览|访问|登[录陆]|到).{0,16}(?:阅读|体验|wap|m\.)
    | (?:最新|最快)(?:章节|更新).{0,20}(?:请到|尽在|首发|就上|请登)
    | (?:无弹窗|全文字|txt全集|TXT全集).{0,12}(?:小说|阅读|下载)
    | (?:小说|电子书|书籍).{0,4}(?:下载|阅读)(?:尽在|请到|就到|就上)
    | ^\W*本(?:书|电子书|小说)(?:来自|由|取自).{1,20}
      (?:网|论坛|书城|书库|电子书)(?:整理|制作|上传|首发|提供|，转载)
    | ^\W*您?下载的.{0,6}(?:电子书|小说)来自
    | ^\W*(?:本站|本网站)(?:长期|郑重|不承担|所有(?:小说|章节|内容|作品)|收录的)
    | (?:书友|读者)(?:群|们|大大).{0,12}(?:群号|推荐票|月票)
    | ^\W*(?:跪?求|投|砸)(?:各种)?(?:月票|推荐票|收藏|订阅|打赏)
      (?:[，、,\s](?:跪?求|投)?(?:月票|推荐票|收藏|订阅|打赏))*\W*$
    | ^\W*如果您?(?:喜欢|觉得).{0,6}(?:本书|本站|小说|不错).{0,8}
      (?:请|记得).{0,6}(?:收藏|推荐给|分享|购买)
    | (?:加入书签|推荐本书|返回书页|返回目录|章节错误|点此举报|举报本章|TXT下载)[\W]{1,6}
      (?:加入书签|推荐本书|返回书页|返回目录|章节错误|点此举报|举报本章|TXT下载|上一|下一|目录)
    | (?:未完|[没沒]有[结結]束|[后後]面[还還]有).{0,8}[请請](?:[点點][击擊]|翻|按).{0,6}[页頁章]
    | ^\W*[请請]?[点點][击擊]下一[页頁章][继繼][续續][阅閱][读讀]
    | ^[（(【]\s?(?:本章(?:未|已)?完)\s?[）)】]$
    | ^\W*第\s?[(（]\s?\d{1,3}\s?[/／]\s?\d{1,3}\s?[)）]\s?[页頁]\W*$
    | ^\W*喜[欢歡].{1,40}[请請]大家收藏\s?[:：(（] | 更新速度(?:是?全[网網])?最快
    | ^\W*最快更新.{1,24}最新章[节節]\W*$
    | ^\W*(?:加入[书書][签簽]|收藏一下)\W{0,3}方便(?:下次|以[后後])?[阅閱][读讀]\W*$
    | ^\W*新[书書]上[传傳].{0,12}(?:支持|收藏)
    | ^\W*[温溫]馨提示\s?[:：].{0,20}(?:回[车車]|Enter|[←→]|[书書][签簽]|收藏|翻[页頁])
    | 按\s?[←→].{0,3}[键鍵].{0,8}(?:返回|[进進]入)
    | ^\W*章[节節](?:[报報][错錯]|[错錯][误誤])\W*(?:免?登[录陆錄陸]|[点點]此|[举舉][报報])?\W*$
    | ^\W*[pP][sS]\W{0,3}.{0,12}(?:求(?:收藏|推[荐薦]|月票|[订訂][阅閱]|打[赏賞])|群\s?[:：]\s?\d{5})
    | ^\W*(?:[书書]友|[读讀]者|粉[丝絲]|[qQ]{1,2})[交流qQ]{0,4}群(?:[号號])?\s?[:：]\s?\d{5,12}
    | (?:章[节節]|更新|小[说說]|[阅閱][读讀]).{0,6}[请請]?[关關]注.{0,6}公[众眾]号
    | ^\W*[请請]?(?:[关關]注|搜索)(?:微信)?公[众眾]号.{0,20}(?:[阅閱][读讀]|章[节節]|更新|小[说說])
    | [浏瀏][览覽]器.{0,4}[输輸]入本站 | ^\W*[无無](?:[广廣]告|[弹彈]窗)\W{0,2}更新(?:最|更)?快
    | ^\W*(?:最新|手机版)(?:[阅閱][读讀])?网址\s?[:：]
    | [请請](?:退出|[关關][闭閉]).{0,4}(?:[阅閱][读讀]|[转轉][码碼])模式
    | ^\W*(?:[请請]|[记記]得)收藏本(?:站|[书書])
    | ^\W*(?:章[节節]|正文)?(?:内容)?正在手打中 | ^\W*本章[节節]?由.{1,12}(?:手打|整理|上[传傳]|提供)\W*$
    """,
    re.VERBOSE,
)
BANNER_WORDS = (
    "供读者 商业用途 内容 字数 记住 記住 牢记 手机 章节 最新 最快 弹窗 全集 下载"
    " 本书 电子书 本站 本网站 书友 票 收藏 订阅 打赏 书签 本小说 本章 温馨提示 群："
)
BANNER_TRIGGERS = BANNER_WORDS.split()
"""One of these stands in every banner: looking for a word is much faster than for a pattern."""
MAX_BANNER_CHARACTERS = 160
NAVIGATION = re.compile(
    "首页|首頁|目录|目錄|书库|書庫|论坛|論壇|排行|[上下前后後][一页頁章篇节節回]|书签|返回|回首|言情|武侠|科幻|玄幻|都市|登录|注册"
)
NAVIGATION_PARTS = re.compile(r"[\s　|｜/·\[\]【】()（）<>《》←→]+")
MIN_NAVIGATION_PARTS = 2
MAX_NAVIGATION_PART_CHARACTERS = 6


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
    plain = unicodedata.normalize("NFKC", line).casefold()  # full-width letters become plain ones
    found = ADDRESS.search(line)
    if found is None and not (HANZI.search(line) and OPEN_SITE.search(plain)):
        return line
    rest = ADDRESS.sub("", line) if found else OPEN_SITE.sub("", plain)
    is_hidden = found is not None and OBFUSCATED.search(found[0]) is not None
    if _is_advertisement(rest, found is not None, is_hidden):
        return ""
    return ADDRESS.sub(lambda match: "" if _was_put_there(match) else match[0], line)


def _is_advertisement(rest: str, has_address: bool, is_hidden: bool) -> bool:
    """Whether what stands beside an address only praises it.

    ``has_address``: it is one with www or http, and not just a name; ``is_hidden``: it is spelled oddly.
    """
    rest = unicodedata.normalize("NFKC", rest).casefold()
    hanzi, latin = len(HANZI.findall(rest)), len(LATIN.findall(rest))
    if latin > MAX_LATIN_LETTERS or SPEECH.search(rest):
        return False
    if not hanzi:
        return is_hidden or not TWO_WORDS.search(rest)
    words = re.sub(r"[\W_]+", "", rest)
    books, others = len(set(BOOK_WORDS.findall(words))), len(set(WORDS.findall(words)))
    if hanzi <= SHORT_HANZI:
        return 2 * books + others >= 2 or (is_hidden and hanzi <= 6)
    if hanzi <= LONG_HANZI:
        return books >= 1 and 2 * books + others >= (3 if has_address else 5)
    return books >= 2 and 2 * books + others >= 6


def _was_put_there(address: re.Match[str]) -> bool:
    """Whether an address within prose is none of it: it is spelled oddly, or follows a sentence's end."""
    before = address.string[: address.start()].rstrip()[-1:]
    return OBFUSCATED.search(address[0]) is not None or before in set("。！？”」』…")


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
    if len(line) > MAX_BANNER_CHARACTERS:
        return False
    if BANNERS.search(line) and not SPEECH.search(line.strip("『』【】")):
        return True
    parts = [part for part in NAVIGATION_PARTS.split(line) if part]
    named = sum(1 for part in parts if NAVIGATION.search(part))
    return (
        len(parts) >= MIN_NAVIGATION_PARTS
        and max(map(len, parts)) <= MAX_NAVIGATION_PART_CHARACTERS
        and named >= max(2, len(parts) / 2)
    ) or SINGLE_LINKS.fullmatch(line) is not None


SINGLE_LINKS = re.compile("(?:[上下前后後]一[页頁章]|(?:返?回|返回)(?:目录|目錄|首页|首頁|书页)|加入书签)")


SPEECH = re.compile('[“「『"].*[”」』"]')
"""Somebody says it in a story."""


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

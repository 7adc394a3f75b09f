import pytest
from hypothesis import given
from hypothesis import strategies as st

from yanmo.text.read.chapters import chapter_starts, split_chapters

PROSE = "话说天下大势，分久必合。\n"


@pytest.mark.parametrize(
    "line",
    [
        "第一回",
        "第十一章\t",
        "　　第三回　施禅机赵宅治病　说佛法暗中救人",
        "第12章 你是谁？！",
        "第１２章：他来了，她走了",
        "第 一百零八 章 石碣受天文",
        "第〇〇一節、開端",
        "第一卷 风起 第一章 少年",
        "正文 第一回 宴桃园豪杰三结义 斩黄巾英雄首立功",
        "　　上卷 第八回 比通灵金莺微露意　探宝钗黛玉半含酸",
        "第一章序",
        "第八十二回平海怪君心宠爱入龙宫玩好难名",
        "第1章 散文卷(1)",
        "【第三章】 归来",
        "## 第三章 归来",
        "第廿五节 完美的一天",
        "☆、第12章 山雨",
        "=== 第一章 风起 ===",
        "----第二章----",
        "正文第七章 旧债",
        "VIP卷 第八十章 夜渡",
        "【正文】第九章 归人",
        "《长河》第十章 归人",
        "番外 第二章 阿蘅",
        "12.第十二章 阿蘅",
        "第四章 她问：“谁？”",
        "第五章 风停了，雨还没有停。",
        "第三集 夜航",
        "第二部：长河",
        "第一篇　溪声",
        "第四幕",
        "第三折 秋夜",
        "第7话 花火",
        "第八話　花火",
        "楔子",
        "【序章】",
        "引子：雪",
        "番外二 山中",
        "番外（三）：灯",
        "番外篇 灯",
        "尾声　长河",
        "终章（下）",
        "后记",
        "卷三 北地",
        "卷之十二",
        "Chapter 1",
        "CHAPTER XII. The Inn",
        "Chapter Twenty-One: 夜航",
    ],
)
def test_a_heading_begins_a_chapter(line: str) -> None:
    assert split_chapters(f"{PROSE}{line}\n{PROSE}") == [PROSE, f"{line}\n{PROSE}"]


@pytest.mark.parametrize(
    "line",
    [
        "第一回见到他的时候，她就……",
        "第二回忘記了那一年，總之是募集湖北水災捐而譚叫天還沒有死。捐法是兩",
        "第一回：“你是谁？”",
        "第一回，他没有来",
        "　　第四回中既将薛家母子在荣府内寄居等事略已表明，此回则暂不能写矣．",
        "第一章、第二章讲的是少年时候的事",
        "第三回 他终于来了。她站起来。",
        "他读到第三章 天已经黑了。",
        "第一章完",
        "第一卷 终",
        "第三位也是富翁员外打扮",
        "第三章节选自别处的文字，都在这里",
        "（原载《小说月报》第18卷第7期）",
        "第一回 " + "很长的标题" * 20,
        "第一节课是数学",
        "第二节课 数学",
        "第二回合",
        "第三回合 两人都倒下了",
        "第一章节的内容",
        "第一部分",
        "第二集团军到了河边",
        "第一篇文章写得很好",
        "第三话剧团今晚有戏",
        "第二幕后的人",
        "楔子钉进木头里",
        "尾声渐渐远了",
        "番外的故事他没有看",
        "后记，写于除夕",
        "尾声 渐渐听不见了。",
        "卷一卷袖子",
        "卷三千里的风",
        "第五章 她说得很慢，他听得很仔细，两个人都没有看窗外的雨，也没有看灯。",
        "Chapter 1 of the book is long,",
        "chapter and verse",
    ],
)
def test_prose_is_no_heading(line: str) -> None:
    assert split_chapters(f"{PROSE}{line}\n{PROSE}") == [f"{PROSE}{line}\n{PROSE}"]


def numbered(many: int, between: str) -> str:
    return "".join(f"{number}、第几夜 {number * 7}\n{between}" for number in range(1, many + 1))


def test_a_book_that_numbers_its_chapters_throughout_is_cut_there() -> None:
    chapter = PROSE * 12
    book = f"楔子\n{chapter}{numbered(6, chapter)}尾声\n{chapter}"
    assert [p[:2] for p in split_chapters(book)] == ["楔子", "1、", "2、", "3、", "4、", "5、", "6、", "尾声"]
    assert len(split_chapters(numbered(4, chapter))) == 1


@pytest.mark.parametrize(
    "text",
    [
        numbered(9, "饭\n"),
        numbered(6, PROSE * 12).replace("3、", "8、"),
        PROSE * 900 + numbered(6, PROSE * 12),
        numbered(6, PROSE * 12).replace("、第几夜", "、走了；又回来。第几夜"),
        "第一章\n" + PROSE,
    ],
)
def test_numbers_of_lists_are_no_headings(text: str) -> None:
    assert split_chapters(text) == [text]


def test_what_is_counted_is_what_is_cut() -> None:
    text = f"《书》\n第一卷 风\n\n第一章 少年\n{PROSE}第二章 出山\n{PROSE}"
    first, second = chapter_starts(text)
    assert split_chapters(text) == [text[:first], text[first:second], text[second:]]


def test_headings_with_nothing_between_stay_together() -> None:
    volume = f"第一卷 风起\n\n　\n第一章 少年\n{PROSE}"
    contents = f"第一章 少年\n第二章 出山\n\n第一章 少年\n{PROSE}"
    assert split_chapters(volume + "第二章 出山\n") == [volume, "第二章 出山\n"]
    assert split_chapters(contents) == [contents]


def test_text_without_headings_is_one_part() -> None:
    assert split_chapters(PROSE) == [PROSE]
    assert split_chapters("") == [""]


def test_what_stands_before_the_first_heading_is_a_part_unless_it_is_blank() -> None:
    assert split_chapters("《书》\n第一章\n字") == ["《书》\n", "第一章\n字"]
    assert split_chapters("\n　\n第一章\n字") == ["\n　\n第一章\n字"]


@given(st.lists(st.sampled_from(["第一章\n", "　第2回 a\n", "\n", "　\n", "字。\n", "第", "x"])).map("".join))
def test_parts_joined_are_the_text(text: str) -> None:
    parts = split_chapters(text)
    assert "".join(parts) == text
    assert all(part.strip() for part in parts) or parts == [text]

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yanmo.text.chapters import split_chapters

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
    ],
)
def test_prose_is_no_heading(line: str) -> None:
    assert split_chapters(f"{PROSE}{line}\n{PROSE}") == [f"{PROSE}{line}\n{PROSE}"]


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

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yanmo.text.crawl.page import Page, read_page
from yanmo.text.crawl.profile import Profile, Selectors

URL = "http://a.example/book/1.html"


def profile(**select: object) -> Profile:
    chosen = Selectors(**({"body": ".body", "chapter": "a.c", "next": "a.n"} | select))  # type: ignore[arg-type]
    return Profile(start=("http://a.example/",), permission="a test", select=chosen)


def read(html: str | bytes, kind: str = "chapter", content_type: str = "text/html", **select: object) -> Page:
    data = html if isinstance(html, bytes) else html.encode()
    return read_page(data, content_type, URL, profile(**select), kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("label", ["gb2312", "GBK", "gb18030", "x-gbk", "utf-8", "nonsense", ""])
def test_a_gbk_page_is_read_whatever_its_label_says(label: str) -> None:
    text = "镕𠮷：他说，今天的天气很好，我们一起去江边走走。"  # 镕 is GBK's, 𠮷 has four bytes in GB18030
    page = read(f"<meta charset='{label}'><div class=body>{text}</div>".encode("gb18030"))
    assert (page.text, page.encoding, page.replaced) == (text, "gb18030", 0)


def test_a_label_in_the_header_is_no_better() -> None:
    html = "<meta charset=utf-8><div class=body>春眠不觉晓，处处闻啼鸟。</div>"
    assert read(html.encode(), content_type="text/html; charset=gb2312").encoding == "utf-8"


def test_a_label_decides_where_evidence_cannot() -> None:
    html = "<meta charset=shift_jis><div class=body>吾輩は猫である。名前はまだ無い。</div>"
    assert read(html.encode("shift_jis")).text == "吾輩は猫である。名前はまだ無い。"


def test_a_few_broken_bytes_cost_a_few_characters_and_are_counted() -> None:
    data = ("<meta charset=gbk><div class=body>" + "他说今天的天气很好。" * 50).encode("gbk") + b"\xff</div>"
    page = read(data)
    assert page.text.startswith("他说今天的天气很好。他说")
    assert page.replaced == 1


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ValueError, match="not utf-8 at byte"):
        read(bytes(range(128, 256)) * 40)


def test_a_text_has_the_lines_that_a_browser_shows() -> None:
    body = """<div class=body>　　第一段<b>粗</b>体<!-- 注 --><script>x()</script>，
    接着。<br>第二行<br/><br/>
    <p>三  四&nbsp;五</p>尾<div>嵌<span>套</span></div>末<pre>诗一
诗二</pre></div>"""
    assert read(body).text.split("\n") == [
        "第一段粗体，接着。", "第二行", "三 四 五", "尾", "嵌套", "末", "诗一", "诗二",
    ]  # fmt: skip


def test_several_matches_are_joined_and_none_is_counted_twice() -> None:
    html = "<div class=body>外<div class=body>内</div></div><div class=body>后</div>"
    assert read(html).text == "外\n内\n后"


def test_what_the_profile_drops_is_dropped_and_what_follows_it_stays() -> None:
    assert read("<div class=body>前<i class=ad>广告</i>后</div>", drop=(".ad", "title")).text == "前后"


def test_the_main_text_is_found_where_no_selector_fits() -> None:
    prose = (
        "那年冬天，祖母死了，父亲的差使也交卸了，正是祸不单行的日子。我从北京到徐州，打算跟着父亲奔丧回家。"
    )
    paragraphs = "".join(f"<p>{n}。{prose}</p>" for n in range(5))
    html = f"<html><body><nav><a href=/>首页</a><a href=/x>栏目</a></nav><article>{paragraphs}</article></body></html>"
    page = read(html)
    assert page.by == "trafilatura"
    assert page.text.count(prose) == 5
    assert "首页" not in page.text
    assert read(html, body="article").by == "selector"


@pytest.mark.parametrize(
    "unit",
    ["<p>一句话。</p>", "<b>一句话。</b>", "<table><tr><td>一句话。</table>", "<br>一句话。", "<hr>一句话。"],
)
def test_a_page_of_too_many_tags_is_taken_whole_and_says_so(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yanmo.text.read.html.MAX_TAGS", 50)
    monkeypatch.setattr("trafilatura.bare_extraction", lambda *a, **b: pytest.fail("it was called"))
    page = read(f"<body>{unit * 100}<script>x</script></body>")
    assert page.by == "page" and page.text.count("一句话。") == 100 and "x" not in page.text
    assert read(f"<div class=body>{unit * 100}</div>").by == "selector"
    assert read("<body>" + "<br>" * 100).by == ""


def test_an_empty_page_has_no_text() -> None:
    for html in (
        b"",
        b"  \n",
        b"<html></html>",
        b"<div class=body> &nbsp; </div>",
        b"<!-- x -->",
        b"<h1>\xe7\xab\xa0</h1>",
    ):
        page = read(html)
        assert (page.text, page.by) == ("", "")


def test_plain_text_is_text() -> None:
    page = read("第一章\r\n\r\n　　正文<b>".encode("gbk"), content_type="text/plain; charset=gb2312")
    assert (page.text, page.by) == ("第一章\n正文<b>", "plain")


def test_links_are_absolute_and_each_once_where_it_stands_last() -> None:
    html = (
        '<a class=c href="2.html#top">二</a><a class=c href="/x/1.html">一</a><a class=c href="2.html">二</a>'
        '<a class=c href="#here">此</a><a class=c>无</a><a class=c href="http://[broken">坏</a>'
        '<a class=n href=" ?page=2 ">下一页</a>'
    )
    page = read(html, "list")
    assert page.links["chapter"] == ["http://a.example/x/1.html", "http://a.example/book/2.html"]
    assert page.links["next"] == ["http://a.example/book/1.html?page=2"]
    assert page.links["list"] == []
    assert page.text == ""


def test_a_base_and_a_gbk_query_are_understood() -> None:
    html = "<base href='/root/'><meta charset=gbk><a class=c href='s.asp?q=中文的查询和今天的天气'>x</a>"
    (link,) = read(html.encode("gbk"), "list").links["chapter"]
    assert link.startswith("http://a.example/root/s.asp?q=%D6%D0%CE%C4")


def test_selectors_may_name_attributes() -> None:
    page = read(
        "<a class=c href=1.html>x</a><p data-by='作者：鲁迅'>",
        chapter="a::attr(href)",
        author="p::attr(data-by)",
    )
    assert page.links["chapter"] == ["http://a.example/book/1.html"]
    assert page.author == "鲁迅"


@pytest.mark.parametrize(
    ("head", "title"),
    [
        ("<title>站</title><h1> 第一章\n春 </h1>", "第一章春"),
        ("<title>站</title><h1>一</h1><h1>二</h1><meta property='og:title' content='真题'>", "真题"),
        ("<title>题_站</title>", "题_站"),
        ("", ""),
    ],
)
def test_titles(head: str, title: str) -> None:
    assert read(head).title == title


@pytest.mark.parametrize(
    ("said", "time"),
    [
        ("发表于 2019-3-5", "2019-03-05"),
        ("2019年03月05日 7:08", "2019-03-05T07:08:00"),
        ("2019/3/5 17:08:59", "2019-03-05T17:08:59"),
        ("2019.3.5", "2019-03-05"),
        ("去年冬天", "去年冬天"),
        ("", ""),
    ],
)
def test_times(said: str, time: str) -> None:
    assert read(f"<p class=t>{said}</p>", time=".t").time == time
    assert read(f"<time datetime='{said}'></time>").time == time


@pytest.mark.parametrize(
    "hostile", [b"<div>" * 100_000, b"<p " + b"a=1 " * 500_000, b"<" * 900_000, b"&#x0;" * 99_999]
)
def test_hostile_html_is_read(hostile: bytes) -> None:
    read(hostile + b"<div class=body>x")


@given(st.binary(max_size=300), st.sampled_from(["", "text/html; charset=gbk", "text/plain"]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_a_page_or_a_value_error(data: bytes, content_type: str) -> None:
    for hostile in (data, b"<div class=body>" + data):
        try:
            page = read(hostile, content_type=content_type)
        except ValueError:
            continue
        page.text.encode()
        assert all(line == line.strip() and line for line in page.text.split("\n") if page.text)


@pytest.mark.parametrize(
    "how", ["hidden", "style='display:none'", "style='VISIBILITY:hidden !important'", "style='font-size:0px'"]
)
def test_what_a_page_hides_is_no_text_but_its_links_are_links(how: str) -> None:
    noise = f"<span {how}>盗版<a class=c href=2.html>可耻</a></span>"
    page = read(f"<h1>第一章{noise}</h1><div class=body><p>夜深{noise}了。</p><p {how}>无</p>雨停</div>")
    assert (page.title, page.text) == ("第一章", "夜深了。\n雨停")
    assert page.links["chapter"] == ["http://a.example/book/2.html"]


def test_what_a_page_hides_is_no_text_where_trafilatura_reads_it() -> None:
    prose = (
        "那年冬天，祖母死了，父亲的差使也交卸了，正是祸不单行的日子。我从北京到徐州，打算跟着父亲奔丧回家。"
    )
    paragraphs = "".join(f"<p>{n}。{prose}<i style='font-size:0'>偷文{n}</i></p>" for n in range(5))
    page = read(f"<html><body><article>{paragraphs}</article></body></html>")
    assert page.by == "trafilatura" and page.text.count(prose) == 5 and "偷文" not in page.text


def test_a_label_that_is_a_codec_of_python_is_not_believed() -> None:
    page = read("<div class=body>价 \\u4f60\\x3c</div>", content_type="text/html; charset=unicode_escape")
    assert (page.text, page.encoding) == ("价 \\u4f60\\x3c", "utf-8")


def test_the_latest_chapters_above_the_list_change_no_order() -> None:
    def link(n: int) -> str:
        return f"<dd><a class=c href={n}.html>第{n}章</a></dd>"

    for latest in ((12, 11, 10), (10, 11, 12), (12,), (1, 12)):
        html = "<dl>" + "".join(map(link, (*latest, *range(1, 13)))) + "</dl>"
        found = read(html, "list").links["chapter"]
        assert found == [f"http://a.example/book/{n}.html" for n in range(1, 13)]


def test_a_page_joined_from_two_encodings_has_its_links() -> None:
    line = "<p>春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。</p>" * 20
    link = '<a class=c href="2.html?名=二">下一章</a>'
    page = read(line.encode() + b"\n" + line.encode("gb18030") + b"\n" + link.encode(), "list", chapter="a.c")
    assert "+" in page.encoding
    assert list(page.links["chapter"]) == ["http://a.example/book/2.html?%E5%90%8D=%E4%BA%8C"]

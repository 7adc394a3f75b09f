/**
 * Everything the page says, in Chinese and in English.
 *
 * An element with `data-say="key"` has its text from here, `data-say-title` its tooltip and name, `data-say-placeholder`
 * its placeholder.
 */

const WORDS = {
  write: ["写作", "Write"],
  run: ["训练", "Run"],
  untitled: ["无题", "Untitled"],
  title: ["题目", "Title"],
  begin: ["从这里写起……", "Begin here…"],
  continue: ["续写", "Continue"],
  stop: ["停下", "Stop"],
  candidates: ["几种写法", "How many candidates"],
  one: ["一种写法", "1 way"],
  several: ["{} 种写法", "{} ways"],
  colours: ["惊奇", "Surprise"],
  coloursHelp: ["给每个字染上模型的惊奇：颜色越深，模型越没料到（只凭前文，不看笔记和文稿记忆）；点一个字（或 Alt+↓）看它还想写什么", "Colour every character by how little the model expected it after the text before it, without notes and memory; click one (or Alt+↓) to see what else it thought of"],
  undo: ["撤销", "Undo"],
  redo: ["重做", "Redo"],
  theme: ["明暗", "Light or dark"],
  language: ["English", "中文"],
  model: ["模型", "Model"],
  panels: ["侧栏", "Panels"],
  notes: ["笔记", "Notes"],
  outline: ["目录", "Outline"],
  branches: ["历史", "History"],
  settings: ["设置", "Settings"],
  books: ["文稿", "Manuscripts"],
  close: ["关闭", "Close"],
  acceptAll: ["全部收下", "take all"],
  acceptSentence: ["收下一句", "take a sentence"],
  reject: ["不要", "reject"],
  again: ["换一个", "another"],
  thinking: ["正在写……", "writing…"],
  stopped: ["停下了", "stopped"],
  likeliest: ["最有把握 · 平均概率 {}", "likeliest · mean probability {}"],
  meanProbability: ["平均概率 {}", "mean probability {}"],
  ended: ["模型觉得写到这里就完了。", "The model would end the text here."],
  offline: ["服务器没有回答。可以接着写，文字都存在这个浏览器里；服务器回来后这一条会自己消失。", "The server does not answer. You can go on writing: the text is kept in this browser. This bar goes when the server is back."],
  unsaved: ["浏览器不让存：{}。请导出文稿。", "The browser refuses to store the text: {}. Please export it."],
  damaged: ["这个文件不是研墨的文稿：{}", "This file is no manuscript of yanmo: {}"],
  saved: ["已存", "saved"],
  saving: ["存……", "saving"],
  count: ["{} 字", "{} characters"],
  window: ["窗口 {}／{}（到光标）", "window {} of {}, up to the cursor"],
  windowFull: ["窗口已满 {}", "window full, {}"],
  windowHelp: ["模型一次能看到的词元：深色是笔记，浅色是光标前的正文；满了就只看最后的", "The tokens that the model sees at once: notes dark, the text in front of the cursor light; when it is full, the last ones"],
  notesHelp: ["人物、设定、文风……写在这里的话总是放在窗口最前面，正文再长也不会被挤出去；最多占窗口的一半。", "Characters, setting, tone: what stands here is always put in front of the window and is never pushed out; it may fill half of it."],
  notesPlaceholder: ["人物：\n设定：\n", "Characters:\nSetting:\n"],
  memoryOn: ["文稿记忆已开：写时参考全文", "Memory is on: the whole manuscript is looked back on"],
  noChapters: ["还没有章节。独占一行的“第一章 来信”这样的标题会列在这里。", "No chapters yet. A heading on a line of its own, like “Chapter 1. The letter”, is listed here."],
  branchesHelp: ["写过的每一条路都在。看一看，随时可以回去。", "Every way you have gone is kept. Look at it, and return to it at any time."],
  noBranches: ["还没有分支。撤销之后写别的，或选一个别的字，就有了。", "No branches yet. Undo and write something else, or choose another character, and there will be one."],
  here: ["现在", "now"],
  look: ["看", "Look"],
  return: ["回到这里", "Return here"],
  shares: ["前 {} 字相同", "the first {} characters are the same"],
  alternatives: ["模型在这里想写的字", "What the model would write here"],
  goOn: ["从这里改写下去", "Go on from here"],
  surprise: ["{} · {} 比特", "{} · {} bits"],
  notKnown: ["文首的字没有前文，模型说不出", "The first character has nothing in front of it: the model cannot say"],
  bytes: ["⟨{}…⟩", "⟨{}…⟩"],
  space: ["空格", "space"],
  endOfText: ["完", "the end"],
  copied: ["抄录", "Copied"],
  copiedHelp: ["在训练文字里一字不差连着出现的，加下划线", "Underline what stands word for word in the training text"],
  legend: ["意料之中 → 出乎意料", "expected → surprising"],
  export: ["导出", "Export"],
  import: ["导入 .json", "Import .json"],
  newBook: ["新文稿", "New manuscript"],
  remove: ["删除", "Delete"],
  removeSure: ["删除“{}”和它的全部历史？", "Delete “{}” and all of its history?"],
  token: ["这个服务器要令牌", "This server wants its token"],
  tokenHelp: ["启动 yanmo serve 的人知道它。关掉标签页就忘掉。", "Whoever started yanmo serve knows it. It is forgotten when the tab is closed."],
  tokenWrong: ["不是这个。", "It is another one."],
  enter: ["进入", "Enter"],
  noRun: ["这个模型没有带训练记录。", "This model comes without a record of its training."],
  noEvaluation: ["还没有评估过，所以没有曲线。", "It was not evaluated yet, so there is no curve."],
  lossCurve: ["损失（比特／字）", "Loss (bits per character)"],
  train: ["训练", "training"],
  validation: ["验证", "validation"],
  uniform: ["瞎猜", "uniform"],
  unigram: ["只看字频", "unigram"],
  bigram: ["只看前一字", "bigram"],
  step: ["第 {} 步", "step {}"],
  samples: ["它是怎样学会写的", "Samples as they grew"],
  recipe: ["配方", "Recipe"],
  parameters: ["{} 参数", "{} parameters"],
  context: ["窗口 {} 词元", "window of {} tokens"],
  auto: ["不停", "nowhere"],
  off: ["不用", "off"],
  verse: ["写诗", "Verse"],
  verseOn: ["写诗模式", "Verse mode"],
  verseHelp: ["续写时按格律写：每行几字、几行、藏头、押韵。", "Continue in verse: characters a line, lines, acrostic, rhyme."],
  verseCharacters: ["每行字数", "Characters a line"],
  verseLines: ["行数", "Lines"],
  verseHeads: ["藏头（各行第一个字）", "Acrostic (first characters)"],
  verseRhyme: ["押韵", "Rhyme"],
  sampler: ["怎样写", "How it writes"],
  limits: ["写到哪里", "How far"],
  repetition: ["少重复", "Repetition"],
  manuscript: ["文稿", "Manuscript"],
  max_tokens: ["一次多长", "Length"],
  max_tokensHelp: ["每次续写最多写多少个词元（多半一个词元一个字）。", "How many tokens it writes at most; mostly one token is one character."],
  stop_at: ["停在", "Stop at"],
  stop_atHelp: ["写完一句、一段、一章或一行就停。", "Stop at the end of a sentence, paragraph, chapter or line."],
  sentence: ["句末", "sentence"],
  paragraph: ["段末", "paragraph"],
  chapter: ["章末", "chapter"],
  line: ["行末", "line"],
  temperature: ["温度", "Temperature"],
  temperatureHelp: ["低了稳当，高了大胆；0 总选最可能的字。", "Lower is safer, higher is wilder; 0 always takes the likeliest."],
  top_p: ["top-p", "Top-p"],
  top_pHelp: ["只从加起来有这么多概率的最可能的字里挑；1 是都可以。", "Choose among the likeliest that together have this probability; 1 is all."],
  top_k: ["top-k", "Top-k"],
  top_kHelp: ["只从最可能的这么多个里挑；0 是都可以。", "Choose among this many likeliest; 0 is all."],
  min_p: ["min-p", "Min-p"],
  min_pHelp: ["不到最可能者这个比例的不要；0 是都要。", "Drop what is less likely than this fraction of the likeliest; 0 keeps all."],
  repetition_penalty: ["重复惩罚", "Repetition penalty"],
  repetition_penaltyHelp: ["写过的字再写要打折；1 是不罚，1.1 到 1.3 常用。", "Makes what was written less likely; 1 is off, 1.1 to 1.3 is usual."],
  frequency_penalty: ["频率惩罚", "Frequency penalty"],
  frequency_penaltyHelp: ["同一个字写得越多越不想再写；0 是不罚。", "The more often something was written, the less likely it becomes; 0 is off."],
  presence_penalty: ["出现惩罚", "Presence penalty"],
  presence_penaltyHelp: ["只要写过就罚一次；0 是不罚。", "What was written at all becomes less likely, once; 0 is off."],
  penalty_window: ["惩罚回看", "Penalty window"],
  penalty_windowHelp: ["惩罚只看最近这么多个词元；0 是看整个窗口。", "Penalties look back on this many tokens; 0 is the whole window."],
  no_repeat_ngram: ["不重复的连串", "No repeated n-gram"],
  no_repeat_ngramHelp: ["连着这么多个词元不许写第二遍；0 是不管。", "Never write this many tokens in a row twice; 0 is off."],
  banned: ["禁语", "Banned phrases"],
  bannedHelp: ["模型绝不写出的话，一行一句。", "What the model never writes, one phrase a line."],
  seed: ["种子", "Seed"],
  seedHelp: ["填一个数，同样的前文就写出同样的续文；空着每次不同。", "With a number the same text is continued in the same way; empty, differently each time."],
  memory: ["文稿记忆", "Memory"],
  memoryHelp: ["让模型回看整部文稿：0 不看，0.3 到 0.4 常用。人名、说法更容易前后一致。", "Lets the model look back on the whole manuscript: 0 is off, 0.3 to 0.4 is usual. Names stay the same more often."],
  no_copy: ["不抄原文", "Do not copy"],
  no_copyHelp: ["绝不连着写出训练文字里的这么多个字；0 是不管。“抄录”也从这么多字标起（不填是 12）。", "Never write this many characters in a row of the training text; 0 is off. Underlining begins at as many (12 where empty)."],
};

const LANGUAGE = "yanmo.language";
let column = (localStorage.getItem(LANGUAGE) ?? navigator.language).startsWith("zh") ? 0 : 1;

/** The words of a key, with a value in the place of each {}. */
export function say(key, ...values) {
  return WORDS[key][column].replaceAll("{}", () => String(values.shift()));
}

export function language() {
  return ["zh", "en"][column];
}

export function switchLanguage() {
  column = 1 - column;
  localStorage.setItem(LANGUAGE, language());
  sayAll(document);
}

/** Put the words into all elements under a node that name a key. */
export function sayAll(root) {
  document.documentElement.lang = column === 0 ? "zh-Hans" : "en";
  for (const element of root.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
  for (const element of root.querySelectorAll("[data-say-title]")) name(element, say(element.dataset.sayTitle));
  for (const element of root.querySelectorAll("[data-say-placeholder]"))
    element.setAttribute("placeholder", say(element.dataset.sayPlaceholder));
}

function name(element, words) {
  element.title = words;
  if (!element.textContent.trim() || element.matches("input, select, textarea")) element.setAttribute("aria-label", words);
}

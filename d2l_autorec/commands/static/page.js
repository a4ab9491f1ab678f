// Rate items, and see what a model recommends: all that is known of the reader is here.

const TEXTS = {
  en: {
    heading: "What would you like?",
    about: (m) => `AutoRec on ${m.name}: ${m.num_users.toLocaleString("en")} users, `
      + `${m.num_items.toLocaleString("en")} items`,
    rate: "Rate what you know",
    search: "Search by title",
    yours: "Your ratings",
    none: "None so far. They stay on this page, and are gone when it is closed.",
    best: "Recommended for you",
    unknown: "Without any rating: what the model recommends to somebody it does not know.",
    known: (n) => `From ${n} of your ratings. The number is the rating it predicts.`,
    lists: {
      about: (m) => `Lists from ${m.name}: ${m.num_users.toLocaleString("en")} users, `
        + `${m.num_items.toLocaleString("en")} items`,
      rate: "Choose what you like",
      yours: "What you like",
      none: "Nothing so far. It stays on this page, and is gone when it is closed.",
      unknown: "Without any choice: what the model recommends to somebody it does not know.",
      known: (n) => `From ${n} items that you like, the most likely one first.`,
      stars: (name) => `${name}: I like it`,
    },
    nothing: "Nothing found.",
    stars: (name, level) => `${name}: ${level}`,
    remove: "Take back",
    refused: (why) => `No recommendations: ${why}`,
    gone: "The program does not answer; was it ended?",
  },
  ko: {
    heading: "어떤 작품이 마음에 드실까요?",
    about: (m) => `AutoRec, ${m.name}: 사용자 ${m.num_users.toLocaleString("ko")}명, `
      + `항목 ${m.num_items.toLocaleString("ko")}개`,
    rate: "아는 작품에 별점 매기기",
    search: "제목으로 찾기",
    yours: "내 별점",
    none: "아직 없습니다. 별점은 이 화면에만 있고, 닫으면 사라집니다.",
    best: "추천 목록",
    unknown: "아직 별점이 없으므로, 모델이 전혀 모르는 사람에게 추천하는 목록입니다.",
    known: (n) => `내 별점 ${n}개로 추천했습니다. 숫자는 예측 평점입니다.`,
    lists: {
      about: (m) => `추천 목록 모델, ${m.name}: 사용자 ${m.num_users.toLocaleString("ko")}명, `
        + `항목 ${m.num_items.toLocaleString("ko")}개`,
      rate: "좋아하는 항목 고르기",
      yours: "내가 좋아하는 항목",
      none: "아직 없습니다. 고른 항목은 이 화면에만 있고, 닫으면 사라집니다.",
      unknown: "아직 고른 항목이 없으므로, 모델이 전혀 모르는 사람에게 추천하는 목록입니다.",
      known: (n) => `좋아하는 항목 ${n}개로 추천했습니다. 고를 가능성이 큰 순서입니다.`,
      stars: (name) => `${name}: 좋아요`,
      remove: "선택 취소",
    },
    nothing: "찾은 것이 없습니다.",
    stars: (name, level) => `${name}: ${level}점`,
    remove: "별점 취소",
    refused: (why) => `추천할 수 없습니다. 프로그램이 밝힌 이유(영어): ${why}`,
    gone: "프로그램이 응답하지 않습니다. 종료되지 않았는지 확인하십시오.",
  },
};

const asked = new URLSearchParams(location.search).get("lang");
const language = [asked, ...navigator.languages]
  .map((name) => (name ?? "").split("-")[0]).find((name) => name in TEXTS) ?? "en";
const text = TEXTS[language];
const element = (id) => document.getElementById(id);
const ratings = new Map(); // from an item's index to {name, rating}
let levels = [];
let rated = true; // else what is known of an item is a thumb

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(text.gone);
  }
  const answer = await response.json().catch(() => ({ error: response.statusText }));
  if (!response.ok) throw new Error(text.refused(answer.error));
  return answer;
}

function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function thumb() {
  const space = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(space, "svg");
  const shape = document.createElementNS(space, "path");
  picture.setAttribute("viewBox", "0 0 24 24");
  shape.setAttribute("d", "M2 10h4v11H2z M8 21V10l4-8c2 0 3 1.5 2.6 3.5L14 9h6"
    + "c1.5 0 2.2 1 1.9 2.3l-1.7 7.5c-.3 1.4-1.2 2.2-2.5 2.2z");
  picture.append(shape);
  return picture;
}

function stars({ item, name }, list) {
  const labels = levels.map((level) => {
    const input = make("input", {
      type: "radio",
      name: `${list}-${item}`,
      value: level,
      ariaLabel: text.stars(name, level),
      onchange: () => rate(item, { name, rating: level }),
    });
    return make("label", { title: rated ? level : "" }, rated ? "★" : thumb(), input);
  });
  const group = make("fieldset", { ariaLabel: name }, ...labels);
  group.dataset.item = item;
  return group;
}

function row(item, list, ...more) {
  const name = make("span", { className: "name" }, item.name);
  return make("li", {}, ...more, name, stars(item, list));
}

function paint() {
  for (const group of document.querySelectorAll("fieldset")) {
    const given = ratings.get(Number(group.dataset.item))?.rating;
    for (const label of group.children) {
      const level = Number(label.firstElementChild.value);
      label.className = level <= given ? "on" : "";
      label.firstElementChild.checked = level === given;
    }
  }
}

function rate(item, given) {
  const known = ratings.has(item);
  if (given) ratings.set(item, given);
  else ratings.delete(item);
  if (!given || !known) listRated();
  paint();
  recommend();
}

function listRated() {
  element("none").hidden = ratings.size > 0;
  element("rated").replaceChildren(...[...ratings].map(([item, { name }]) => {
    const away = { type: "button", title: text.remove, onclick: () => rate(item) };
    const made = row({ item, name }, "rated");
    made.append(make("button", { ...away, ariaLabel: `${text.remove}: ${name}` }, "✕"));
    return made;
  }));
}

// Of several requests on their way, the last one counts.
function latest(work) {
  let before = new AbortController();
  return async () => {
    before.abort();
    before = new AbortController();
    try {
      await work(before.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      say(error.message, true);
    }
  };
}

function say(message, wrong = false) {
  element("message").textContent = message;
  element("message").className = wrong ? "error" : "";
}

const recommend = latest(async (signal) => {
  const body = JSON.stringify([...ratings].map(([item, { rating }]) => [item, rating]));
  const headers = { "Content-Type": "application/json" };
  try {
    const best = await ask("recommendations", { method: "POST", headers, body, signal });
    element("recommended").replaceChildren(...best.map((item) => {
      const value = make("span", { className: "value" }, item.value.toFixed(2));
      return row(item, "recommended", ...(rated ? [value] : []));
    }));
    say(ratings.size ? text.known(ratings.size) : text.unknown);
  } catch (error) {
    if (error.name !== "AbortError") element("recommended").replaceChildren();
    throw error;
  }
});

const search = latest(async (signal) => {
  const query = encodeURIComponent(element("query").value);
  const found = await ask(`items?q=${query}`, { signal });
  element("found").replaceChildren(
    ...(found.length ? found.map((item) => row(item, "found")) : [text.nothing]),
  );
  paint();
});

function write() {
  for (const place of document.querySelectorAll("[data-text]")) {
    place.textContent = text[place.dataset.text];
  }
}

document.documentElement.lang = language;
write();
element("query").placeholder = element("query").ariaLabel = text.search;
element("query").oninput = search;
try {
  const model = await ask("model");
  levels = model.levels;
  if (!model.rated) {
    rated = false;
    Object.assign(text, text.lists);
    write();
  }
  element("about").textContent = text.about(model);
  search();
  recommend();
} catch (error) {
  say(error.message, true);
}

/** Light or dark: as the system has it until somebody says otherwise. */

const THEME = "yanmo.theme";

function show(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

export function switchTheme() {
  const systems = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const shown = document.documentElement.dataset.theme ?? systems;
  const theme = shown === "dark" ? "light" : "dark";
  localStorage.setItem(THEME, theme);
  show(theme);
}

show(localStorage.getItem(THEME));

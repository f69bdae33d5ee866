// The themes: light, dark, or that of the system. theme.js sets the chosen theme before the page is drawn.

import { changed } from "./state.js";

const NEXT = { auto: "dark", dark: "light", light: "auto" };

export const theme = () => document.documentElement.dataset.theme ?? "auto";

export function nextTheme() {
  const chosen = NEXT[theme()];
  if (chosen === "auto") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("theme");
  } else {
    document.documentElement.dataset.theme = chosen;
    localStorage.setItem("theme", chosen);
  }
  changed();
}

/** Asks for the token of a server that wants one. */

import { byId } from "./dom.js";

/** @returns {Promise<string>} */
export function askToken() {
  const dialog = byId("token");
  const input = byId("token-text");
  input.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(input.value.trim()), { once: true });
    byId("token-enter").onclick = () => dialog.close();
    input.onkeydown = (event) => event.key === "Enter" && dialog.close();
  });
}

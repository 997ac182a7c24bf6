// Light or dark as Locust's own pages have it: the same key, and the system's wish where nothing was chosen.
"use strict";
(() => {
  const wanted = () => localStorage.theme
    || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const apply = () => { document.documentElement.dataset.theme = wanted(); };
  apply();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      localStorage.theme = wanted() === "dark" ? "light" : "dark";
      apply();
      dispatchEvent(new Event("resize"));
    });
  });
})();

// what scrolls sideways can be reached and moved with the keyboard, in every browser
addEventListener("load", () => {
  for (const each of document.querySelectorAll("pre, .formula, .cell_output, .table-wrapper")) {
    if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
  }
});

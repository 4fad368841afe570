// What every target tells the address sanitizer, whatever the environment says.
extern "C" const char* __asan_default_options() {
  // Inputs are short and all they take from the heap goes back: a large quarantine only costs the
  // cache, and leaks are looked for by those who ask. Who allocated what a report is about is told
  // by a replay (tools/fuzz).
  return "quarantine_size_mb=2:thread_local_quarantine_size_kb=64:malloc_context_size=1:"
         "detect_leaks=0:handle_abort=0";
}
